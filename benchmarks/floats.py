"""Write minimal floating-point units in Verilog, to be counted beside circuits of neurons.

Both leave out what a processor's units have besides: subnormals are taken as 0, results below the smallest normal
number are 0, NaN is not known, and only rounding to nearest exists. Ports and protocol are those of a circuit's module.
"""

from __future__ import annotations

import math

#: Fraction bits inside the exponential, and of its table.
_INSIDE, _SEGMENT_BITS = 14, 5


def divider(exponent_bits: int, fraction_bits: int, name: str = "float_divide") -> str:
    """Return a divider of floats, a bit of the quotient per clock cycle: correctly rounded, ties to even.

    A division by 0, and a quotient that is too large, give infinity.
    """
    e, m = exponent_bits, fraction_bits
    steps, bias = m + 3, (1 << e - 1) - 1
    count = steps.bit_length()
    return f"""`default_nettype none
module {name} (
    input wire clk,
    input wire rst,
    input wire start,
    output reg done,
    input wire [{e + m}:0] in_a,
    input wire [{e + m}:0] in_b,
    output wire [{e + m}:0] out_y
);
wire [{e - 1}:0] exponent_a = in_a[{e + m - 1}:{m}];
wire [{e - 1}:0] exponent_b = in_b[{e + m - 1}:{m}];
wire [{m}:0] b = {{1'b1, in_b[{m - 1}:0]}};
// Restoring division of the significands: {steps} bits, the first of weight 1.
reg running;
reg [{count - 1}:0] count;
reg [{m + 1}:0] rest;
reg [{steps - 1}:0] quotient;
wire [{m + 1}:0] before = count == 0 ? {{2'b01, in_a[{m - 1}:0]}} : rest;
wire [{m + 2}:0] left = {{1'b0, before}} - {{2'b00, b}};
wire fits = !left[{m + 2}];
always @(posedge clk)
    if (rst) begin
        running <= 1'b0;
        done <= 1'b0;
        count <= 0;
    end else if (start) begin
        running <= 1'b1;
        done <= 1'b0;
        count <= 0;
    end else if (running) begin
        rest <= fits ? {{left[{m}:0], 1'b0}} : {{before[{m}:0], 1'b0}};
        quotient <= {{quotient[{steps - 2}:0], fits}};
        count <= count + 1'b1;
        if (count == {steps - 1}) begin
            running <= 1'b0;
            done <= 1'b1;
        end
    end
// One of the first two bits is 1. Rounded to {m} fraction bits, a carry goes into the exponent.
wire high = quotient[{steps - 1}];
wire [{m - 1}:0] fraction = high ? quotient[{m + 1}:2] : quotient[{m}:1];
wire guard = high ? quotient[1] : quotient[0];
wire sticky = rest != 0 || high && quotient[0];
wire signed [{e + 1}:0] exponent =
    $signed({{2'b00, exponent_a}}) - $signed({{2'b00, exponent_b}}) + {e + 2}'sd{bias} - (high ? 2'sd0 : 2'sd1);
wire [{e + m}:0] rounded = {{1'b0, exponent[{e - 1}:0], fraction}} + (guard && (sticky || fraction[0]));
wire zero = exponent_a == 0 || exponent_b != 0 && exponent <= 0;
wire infinite = exponent_b == 0 || exponent >= {(1 << e) - 1};
assign out_y = {{
    in_a[{e + m}] ^ in_b[{e + m}],
    zero ? {e + m}'d0 : infinite ? {{{{{e}{{1'b1}}}}, {m}'d0}} : rounded[{e + m - 1}:0]
}};
endmodule
`default_nettype wire
"""


def exponential(name: str = "float_exp") -> str:
    """Return exp of a float16 in one clock cycle: x log2(e) in fixed point, a table of 32 chords for 2^f.

    Less than one ULP from exp, on every float16 whose exp is normal.
    """
    p, s = _INSIDE, _SEGMENT_BITS
    knots = [round(2 ** (j / 2**s) * 2**p) for j in range(2**s + 1)]
    bases = "\n".join(f"        {s}'d{j}: base = {p + 1}'d{knots[j]};" for j in range(2**s))
    rises = "\n".join(f"        {s}'d{j}: rise = 10'd{knots[j + 1] - knots[j]};" for j in range(2**s))
    return f"""`default_nettype none
module {name} (
    input wire clk,
    input wire rst,
    input wire start,
    output reg done,
    input wire [15:0] in_x,
    output reg [15:0] out_y
);
function [{p}:0] base;
    input [{s - 1}:0] place;
    case (place)
{bases}
        default: base = 0;
    endcase
endfunction
function [9:0] rise;
    input [{s - 1}:0] place;
    case (place)
{rises}
        default: rise = 0;
    endcase
endfunction
// |x| < 16 with {p} fraction bits; times log2(e).
wire [4:0] exponent = in_x[14:10];
wire beyond = exponent > 18;
wire [17:0] significand = exponent == 0 ? 18'd0 : {{8'd1, in_x[9:0]}};
wire [17:0] fixed = exponent >= {25 - p} ? significand << (exponent - {25 - p}) : significand >> ({25 - p} - exponent);
wire [34:0] product = fixed * 17'd{round(math.log2(math.e) * 2**16)};
wire signed [19:0] octaves = in_x[15] ? -$signed({{1'b0, product[34:16]}}) : $signed({{1'b0, product[34:16]}});
wire signed [5:0] whole = octaves[19:{p}];
wire [{p - s - 1}:0] rest = octaves[{p - s - 1}:0];
wire [{s - 1}:0] segment = octaves[{p - 1}:{p - s}];
wire [{p - s + 9}:0] risen = rise(segment) * rest;
wire [{p}:0] mantissa = base(segment) + risen[{p - s + 9}:{p - s}];
wire signed [6:0] biased = whole + 7'sd15;
// A carry of the rounding goes into the exponent.
wire [{p + 5}:0] summed = {{biased[5:0], mantissa[{p - 1}:0]}} + {1 << p - 11};
wire infinite = beyond ? !in_x[15] : biased >= 31;
wire zero = beyond ? in_x[15] : biased <= 0;
always @(posedge clk)
    if (rst)
        done <= 1'b0;
    else begin
        done <= start;
        if (start)
            out_y <= zero ? 16'd0 : infinite ? 16'h7c00 : {{1'b0, summed[{p + 4}:{p - 10}]}};
    end
endmodule
`default_nettype wire
"""
