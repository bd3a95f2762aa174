"""Multiply two matrices of spike codes: attention written out, a router, whatever has no weight of its own.

    y_ij = Σ_k a_ik·b_kj        exact, whatever the exponents, then rounded once

Every element is cut at the multiples of 2^LIMB into limbs, so that the digits of all numbers have the same places. A
membrane per place sums the products of limbs. So what a sum holds is up to its own terms alone: scores do not depend on
other keys, nor a result on the values of keys whose weight is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import Coded, as_real, decode
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.receiver import received
from spikeplug.operators.linear.scaled import coded
from spikeplug.operators.ratio import EXPONENT_BITS
from spikeplug.operators.record import Operator
from spikeplug.operators.rows import BLOCK
from spikeplug.primitives.arithmetic import Arithmetic

#: Digits of a limb.
LIMB = 16
_MASK = (1 << LIMB) - 1
#: Of a sum with so many digits, lower ones only tell on which side of a half it lies: it has more than numerics.bits.
_ENOUGH = 30
#: Bits of a place, a number of limbs.
_PLACE_BITS = 9


def matmul_integers(a: Coded, b: Coded, bits: int, on: Arithmetic) -> Coded:
    """Return the code of a·b in `bits` bits, (..., m, n, 1), an exponent per element: the exact sums, rounded once.

    a  mantissa (..., m, k), an exponent per element;  b  mantissa (..., k, n), the same
    """
    rows, row_place = limbs(a, "rows", on)
    columns, column_place = limbs(b, "columns", on)
    together = torch.cat(columns, -1)
    batch = torch.broadcast_shapes(a.mantissa.shape[:-2], b.mantissa.shape[:-2]).numel()
    step = max(1, BLOCK // (batch * together.shape[-1] * len(rows)))
    parts = []
    for block in zip(*(limb.split(step, -2) for limb in rows), strict=True):
        value, place = _joined(*_sums(block, together, len(columns), on), on)
        exponent = (place + (row_place + column_place)) * LIMB - 1
        parts.append(coded(value.unsqueeze(-1), exponent.unsqueeze(-1), _ENOUGH + LIMB + 2, bits, on))
    mantissa, exponent = (torch.cat([getattr(part, name) for part in parts], -3) for name in ("mantissa", "exponent"))
    return Coded(mantissa, exponent, bits, "element")


def _sums(rows: tuple[Tensor, ...], columns: Tensor, count: int, on: Arithmetic) -> tuple[list[Tensor], int]:
    """Return the sums of the products of limbs, from the lowest place on, and a width: |sum| < 2^width.

    rows     limbs (..., m, k);  columns  `count` limbs (..., k, n), side by side
    """
    width = 2 * LIMB + (rows[0].shape[-1] * len(rows)).bit_length()
    products = on.signed_dot(torch.cat(rows, -2), columns, LIMB, LIMB, name="sums")
    sums: dict[int, Tensor] = {}
    for i, part in enumerate(products.chunk(len(rows), -2)):
        for j, block in enumerate(part.chunk(count, -1)):
            sums[i + j] = on.add(sums[i + j], block, width, "sums/place") if i + j in sums else block
    return [sums[place] for place in range(len(sums))], width


def limbs(code: Coded, name: str, on: Arithmetic) -> tuple[list[Tensor], int]:
    """Return the limbs of a code of elements, and the place p of the first: code = Σ_i limb_i · 2^(LIMB·(p + i)).

    limb  int64 of the code's shape, |limb| < 2^LIMB
    """
    width = code.bits
    used = code.exponent[code.mantissa != 0]
    first, last = (int(used.min()) // LIMB, (int(used.max()) + code.bits) // LIMB) if used.numel() else (0, 0)
    size = on.magnitude(code.mantissa.to(torch.int64), width, f"{name}/magnitude")
    found = []
    for place in range(first, last + 1):
        places = on.clamp(code.exponent - LIMB * place, None, LIMB, EXPONENT_BITS, f"{name}/places")
        digits = on.shift(size, places, width, LIMB, f"{name}/shift") & _MASK
        found.append(on.signed(digits, code.mantissa, LIMB, f"{name}/sign"))
    return found, first


def _joined(sums: list[Tensor], width: int, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """Return (value, place): Σ_i sums_i · 2^(LIMB·i) ≈ value · 2^(LIMB·place - 1), |value| < 2^(_ENOUGH + LIMB + 2).

    sums  int64, |sum| < 2^width

    Exact, unless there are more digits than enough: then the lowest of `value` is 1 if any of those left out is.
    """
    carry, digits = torch.zeros_like(sums[0]), []
    for total in sums:
        total = on.add(total, carry, width, "carry")
        digits.append(total & _MASK)
        carry = total >> LIMB
    for _ in range(-(-(width + 1 - LIMB) // LIMB)):
        digits.append(carry & _MASK)
        carry = carry >> LIMB
    wide, value = _ENOUGH + 2 * LIMB, carry  # 0 or -1: the sign
    place, left_out = torch.full_like(carry, len(digits)), torch.zeros_like(carry)
    for low in reversed(digits):
        enough, below = (on.reaches(x, 1 << _ENOUGH, wide, "value/enough") for x in (value, -value))
        enough = enough | below
        value = on.select(enough, value, value << LIMB | low, wide, "value")
        place = on.select(enough, place, on.add(place, -1, _PLACE_BITS, "place/down"), _PLACE_BITS, "place")
        left_out = on.add(left_out, on.select(enough, low, 0, LIMB, "rest/digits"), LIMB + _PLACE_BITS, "rest")
    more = on.reaches(left_out, 1, LIMB + _PLACE_BITS, "rest/more").to(torch.int64)
    return value << 1 | more, place


def matmul(a: Tensor, b: Tensor, *, on: Arithmetic) -> Tensor:
    """Return a @ b for a (..., m, k) and b (..., k, n): the exact sums, rounded to numerics.bits bits and a sign each.

    An element depends on its row of a and its column of b alone, and not on what meets a 0. A row of a, or column of b,
    with NaN or an infinity gives NaN.
    Errors: SpikeplugError for tensors that are not floating, or whose shapes do not fit.
    """
    dtype = torch.result_type(a, b)
    a, b = as_real(a, on.operator), as_real(b, on.operator)
    if a.dim() < 2 or b.dim() < 2 or a.shape[-1] != b.shape[-2]:
        raise SpikeplugError(
            f"{on.operator} got {tuple(a.shape)} and {tuple(b.shape)}: give (..., m, k) and (..., k, n)."
        )
    if 0 in (*a.shape, *b.shape):
        return (a @ b).to(dtype)
    real = torch.promote_types(a.dtype, b.dtype)
    broken = ~torch.isfinite(a).all(-1, keepdim=True) | ~torch.isfinite(b).all(-2, keepdim=True)
    rows, columns = (received(x.to(real).masked_fill(~torch.isfinite(x), 0.0)) for x in (a, b))
    output = decode(matmul_integers(rows, columns, on.numerics.bits, on), real).squeeze(-1)
    return output.masked_fill(broken, torch.nan).to(dtype)


def bound(a: Tensor, b: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|: half a step of each element of the operands, then the rounding."""
    given = a.abs() @ b.abs() * (2.0**-23 + 2.0**-46)
    return given + ((a @ b).abs() + given) * 2.0**-numerics.bits


RECORD = Operator(
    name="matmul",
    family="linear",
    formula="a·b, matrices",
    spiking=matmul,
    exact=torch.matmul,
    inputs=("residual", "matrix"),
    scale="element",
    bound=bound,
    input_range=lambda numerics: "24 bits per element",
)
