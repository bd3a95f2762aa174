"""Circuits as Verilog: the text and the schedule of a module; simulated in Icarus, the integers of the closed form."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from random import Random

import icarus
import pytest
import torch
from torch import Tensor

import spikeplug
from spikeplug import Numerics, Realisation, SpikeplugError
from spikeplug.circuit import (
    Builder,
    Circuit,
    Gate,
    Held,
    Output,
    Source,
    StageBuilder,
    Traced,
    Wiring,
    held,
    numbers_of,
    run,
    state,
)
from spikeplug.evidence.operands import drawn
from spikeplug.hardware.verilog import Module, Vector, schedule, verilog
from spikeplug.neurons import Events
from spikeplug.operators import LINEAR, RECORDS
from spikeplug.operators.operands import Operands
from spikeplug.operators.recording import integers_of
from spikeplug.presets import as_numerics
from spikeplug.primitives.arithmetic import Arithmetic, Closed, Recorded
from spikeplug.primitives.divide import DivideSpec
from spikeplug.primitives.exponential import PiecewiseExponential
from spikeplug.primitives.norm import CordicSpec, RootSpec

simulated = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus is missing: `apt-get install --no-install-recommends iverilog`"
)
ALL = {**RECORDS, **LINEAR}
ABLE = [name for name, record in ALL.items() if record.integers is not None]
ELEMENTS, BATCH = 3, 48
WEIGHT = torch.tensor([[3, -127, 0], [0, 64, 1]], dtype=torch.int8)


def operand(builder: Builder, name: str, elements: int, low: int, high: int) -> Tensor:
    numbers = [[builder.port(name, place, low, high) for place in range(elements)]]
    return Traced(torch.tensor(numbers), builder, torch.int64)


def divider(division: str, spec: DivideSpec) -> Circuit:
    builder = Builder("divider")
    on = Recorded(Numerics(), "divider", Events(Realisation(division=division)), builder)  # type: ignore[arg-type]
    a = operand(builder, "a", 1, 0, (1 << spec.numerator_bits) - 1)
    b = operand(builder, "b", 1, 0, (1 << spec.denominator_bits) - 1)
    return builder.built([Output("quotient", (1,), tuple(numbers_of(on.divide(a, b, spec), builder)[0].tolist()))])


def test_the_text_is_the_same_each_time_and_has_its_ports() -> None:
    first, second = (verilog(spikeplug.circuit_of("softmax", 3, "narrow")) for _ in range(2))
    assert first == second
    assert first.name == "softmax"
    assert first.inputs == {"scores": Vector("in_scores", 3, first.inputs["scores"].width, True)}
    assert [vector.name for vector in first.outputs.values()] == ["out_mantissa", "out_exponent"]
    for vector in first.inputs.values():
        assert f"input wire [{vector.bits - 1}:0] {vector.name}," in first.text
    assert first.text.isascii()


def test_a_membrane_is_a_register_of_its_width() -> None:
    circuit = divider("restoring", DivideSpec(8, 8, 8))
    (number, stage), text = next(iter(circuit.stages)), verilog(circuit).text
    for place, neuron in enumerate(stage.neurons):
        assert f"reg signed [{neuron.width - 1}:0] n{number}_{place};" in text
    assert verilog(circuit).cycles == stage.steps == 16
    assert verilog(divider("ordered", DivideSpec(4, 4, 4, 16))).cycles == 2


def test_stages_side_by_side_take_no_more_cycles() -> None:
    one, eight = (spikeplug.circuit_of("exp", elements, "narrow") for elements in (1, 8))
    assert eight.steps == 8 * one.steps
    assert verilog(one).cycles == verilog(eight).cycles == max(schedule(one)) < one.steps


def test_the_schedule_is_the_longest_path() -> None:
    builder = Builder("path")
    on = Recorded(Numerics(), "path", Events(), builder)
    a, b = operand(builder, "a", 1, 0, 255), operand(builder, "b", 1, 0, 255)
    sums = on.add(on.add(a, b, 8), 1, 9)  # 8 steps, then 9
    signals = numbers_of(on.add(sums, on.round_half(a, 8), 10), builder)  # 10 more; the rounding runs beside
    circuit = builder.built([Output("y", (1,), tuple(signals[0].tolist()))])
    assert verilog(circuit).cycles == 8 + 9 + 10


def test_a_vector_packs_integers() -> None:
    signed, unsigned = Vector("x", 3, 4, True), Vector("x", 2, 4, False)
    assert signed.word([-8, 7, -1]) == 0xF78
    assert signed.integers(0xF78) == [-8, 7, -1]
    assert unsigned.integers(unsigned.word([15, 1])) == [15, 1]


def test_a_module_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("spikeplug.hardware.verilog.MOST_NEURONS", 15)
        with pytest.raises(SpikeplugError, match="has 16 neurons, more than the 15 that a Verilog module lists"):
            verilog(divider("ordered", DivideSpec(4, 4, 4, 16)))
    builder = Builder("wide")
    wide = builder.wire(builder.port("x", 0, 0, 1 << 40), Wiring(0, places=-30))
    with pytest.raises(SpikeplugError, match="wide has integers of 71 bits, more than the closed form's 64"):
        verilog(builder.built([Output("y", (1,), (wide,))]))


def test_a_signed_spike_cannot_close_a_gate() -> None:
    builder = Builder("closing")
    x = builder.port("x", 0, -3, 3)
    stage = Recorded(Numerics(), "closing", Events(), builder)._scope("sum").stage()
    train = stage.train("operand", x, "bits", 2)
    neuron = stage.neuron("", "accumulator", 8, start=(held(x),))
    stage.synapse(neuron, 1, Gate(train, closes=True))
    circuit = builder.built([Output("y", (1,), (stage.settled(neuron, 2, -9, 9),))])
    with pytest.raises(SpikeplugError, match="closing/sum: a graded or signed spike can only open a synapse"):
        verilog(circuit)


# Simulated.


def check(module: Module, operands: dict[str, Tensor], wanted: dict[str, Tensor], folder: Path) -> None:
    found, edges = icarus.simulate(module, operands, folder)
    assert edges == {module.cycles}
    assert found.keys() == wanted.keys()
    for name, x in wanted.items():
        assert torch.equal(found[name], x.to(torch.int64).reshape(found[name].shape)), name


@simulated
@pytest.mark.parametrize("division", ["restoring", "ordered"])
def test_all_quotients_of_four_bits(division: str, tmp_path: Path) -> None:
    spec = DivideSpec(4, 4, 4, 16)
    pairs = torch.cartesian_prod(torch.arange(16), torch.arange(16))
    a, b = pairs[:, :1], pairs[:, 1:]
    wanted = Closed().divide(a, b, spec)
    check(verilog(divider(division, spec)), {"a": a, "b": b}, {"quotient": wanted}, tmp_path)


@simulated
@pytest.mark.parametrize("numerics", ["narrow", "default", "paper"])
@pytest.mark.parametrize("name", ABLE)
def test_a_module_gives_the_integers_of_the_closed_form(name: str, numerics: str, tmp_path: Path) -> None:
    weight = WEIGHT if name == "linear" else None
    realisation = "default" if numerics == "paper" else None  # the published groups have a thousand neurons and more
    module = verilog(spikeplug.circuit_of(name, ELEMENTS, numerics, realisation, weight=weight))
    operands: dict[str, Tensor] = {}
    given = Operands(ELEMENTS, as_numerics(numerics), drawn(operands, BATCH), weight)
    codes = integers_of(name, given, Closed(as_numerics(numerics), name))
    wanted = {part: x.expand(BATCH, *x.shape[1:]) for part, x in codes.items()}
    check(module, operands, wanted, tmp_path)


def _line(on: Arithmetic, a: Tensor, b: Tensor) -> Tensor:
    """Use what no operator with these numerics uses: a tree of rotations, chords shifted left, a ceiling."""
    tree = on.cordic(on.magnitude(a, 8), CordicSpec(8, 8))
    chord = on.piecewise(on.scale(b, 3, 8), PiecewiseExponential(10.0, 64, 6, 22))
    clamped = on.clamp(on.divide(on.magnitude(a, 8), on.magnitude(b, 8), DivideSpec(8, 8, 8, 999)), -10, 30, 16)
    root = on.root(on.magnitude(a, 8), RootSpec(4))
    return torch.cat([tree, chord, clamped, root], -1)


@simulated
@pytest.mark.parametrize("norm", ["restoring", "ordered"])
def test_other_verbs(norm: str, tmp_path: Path) -> None:
    builder = Builder("verbs")
    realisation = Realisation(norm=norm)  # type: ignore[arg-type]
    a, b = (operand(builder, name, 2, -255, 255) for name in "ab")
    signals = numbers_of(_line(Recorded(Numerics(), "verbs", Events(realisation), builder), a, b), builder)
    circuit = builder.built([Output("y", tuple(signals.shape[1:]), tuple(signals.flatten().tolist()))])
    operands: dict[str, Tensor] = {}
    give = drawn(operands, BATCH)
    x, y = (give(name, (2,), -255, 255, False) for name in "ab")
    check(verilog(circuit), operands, {"y": _line(Closed(), x, y)}, tmp_path)


def _random(seed: int) -> Circuit:
    """Return a circuit of three stages, with whatever a stage can have, whose membranes fit 48 bits."""
    random, builder = Random(seed), Builder("random")
    signals = [builder.port("x", place, -50, 50) for place in range(2)] + [builder.port("y", 0, 0, 30)]
    signals += [builder.wire(signals[0], Wiring(0, -1, -1, 7)), builder.wire(signals[1], Wiring(0, 2, 1, -3, 30))]
    signals += [builder.constant(-5), builder.read("random/table", [3, -7, 20] * 11, signals[2])]
    signals.append(builder.read("random/table", [4, -4], builder.constant(1)))
    for number in range(3):
        stage, steps = StageBuilder(builder, f"random/{number}"), random.choice([1, 4])
        trains = [stage.train(form, random.choice(signals), form, 5, digits=2) for form in ("bits", "magnitude")]
        trains.append(stage.train("bits", random.choice(signals), "bits", random.choice([2, 4, 6])))
        trains.append(stage.train("graded", random.choice(signals), "graded", only=random.choice([None, 0, 2])))
        gates = [stage.train(form, random.choice(signals), form) for form in ("negative", "positive", "until")]
        gates.append(stage.train("until", random.choice(signals), "until", only=random.choice([None, 1])))
        neurons: list[Source] = []

        def weight(neurons: list[Source] = neurons) -> int | Held:
            factor, places = random.choice([1, -1, 3, -4]), random.choice([0, 2])
            some = [random.randint(-9, 9), held(random.choice(signals), factor, places)]
            return random.choice(some + [state(n, random.choice([1, -1]), 5) for n in neurons[:1]])

        for place in range(4):
            neuron = stage.neuron(
                f"{place}",
                "threshold",
                48,
                leak=random.choice([None, -1, 0, 1]),
                leaks_if=[Gate(random.choice(gates), random.random() < 0.5)] if random.random() < 0.3 else [],
                start=(random.randint(-9, 9), held(random.choice(signals), 2)),
                threshold=random.choice([None, (random.randint(-9, 9), held(random.choice(signals)))]),
                fires_if=[Gate(random.choice(gates), random.random() < 0.5)] if random.random() < 0.5 else [],
                ceiling=random.choice([None, None, 21]),
            )
            fired = [n for n in neurons if stage._stage.neurons[n.number].threshold is not None]
            for _ in range(3):
                opened = random.sample(trains, random.randint(0, 1)) + random.sample(
                    gates + fired, random.randint(0, 2)
                )
                closed = Gate(random.choice(gates + fired), closes=random.random() < 0.5)
                stage.synapse(neuron, weight(), *opened, closed, step=random.choice([None, None, 0, 1]))
            neurons.append(neuron)
        if fired and random.random() < 0.3:
            signals.append(stage.counted(fired, steps))
        else:
            signals.append(stage.settled(random.choice(neurons), steps, -(1 << 47), (1 << 47) - 1))
            low, high = -40, 40  # of the low bits only: the next stage's membranes have to fit
            signals[-1] = builder.wire(signals[-1], Wiring(0, mask=31))
            assert low <= builder.bounds(signals[-1])[0] <= builder.bounds(signals[-1])[1] <= high
    return builder.built([Output("z", (3,), tuple(signals[-3:]))])


@simulated
@pytest.mark.parametrize("seed", range(20))
def test_any_circuit_does_what_its_executor_does(seed: int, tmp_path: Path) -> None:
    circuit, operands = _random(seed), {}
    give = drawn(operands, BATCH)
    give("x", (2,), -50, 50, False)
    give("y", (1,), 0, 30, False)
    check(verilog(circuit), operands, run(circuit, operands), tmp_path)


@simulated
def test_a_start_while_it_runs_begins_anew(tmp_path: Path) -> None:
    """A bench that starts twice, with other operands, gets the quotient of the second; and it is held."""
    module = verilog(divider("restoring", DivideSpec(8, 8, 8)))
    text = """module bench;
reg clk, rst, start; reg [7:0] a, b; wire done; wire [15:0] y; integer edge_;
divider dut(.clk(clk), .rst(rst), .start(start), .done(done), .in_a(a), .in_b(b), .out_quotient(y));
task tick; begin #1 clk = 1; #1 clk = 0; end endtask
initial begin
    clk = 0; rst = 1; start = 0; tick; rst = 0; tick;
    $display("%b", done);
    a = 200; b = 3; start = 1; tick; start = 0; tick; tick; tick;
    a = 77; b = 5; start = 1; tick; start = 0;
    for (edge_ = 0; edge_ < 16; edge_ = edge_ + 1) begin $display("%b", done); tick; end
    a = 0; b = 0; tick; tick;
    $display("%b %0d", done, y);
    $finish;
end
endmodule
"""
    (tmp_path / "bench.v").write_text(text + module.text, encoding="ascii")
    lines = icarus.run(["bench.v"], tmp_path)
    assert lines == ["0"] * 17 + [f"1 {(77 << 8) // 5}"]


# The command.


def test_export(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from spikeplug.cli import app

    path = tmp_path / "new" / "softmax.v"
    arguments = ["export", "softmax", str(path), "--elements", "2", "--numerics", "narrow", "--format", "verilog"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert path.read_text(encoding="utf-8") == verilog(spikeplug.circuit_of("softmax", 2, "narrow")).text
    assert re.search(r"module softmax: \d+ clock cycles", " ".join(result.output.split()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["softmin", "x.v"], "unknown operator 'softmin'"),
        (["softmax", "x.v", "--format", "vhdl"], "unknown format 'vhdl': choose one of verilog"),
        (["linear", "x.v"], "needs weight"),
        (["softmax", "x.v", "--elements", "0"], "elements=0"),
        (["softmax", "x.v", "--numerics", "wide"], "wide"),
        (["softmax", "."], "it is a folder"),
    ],
)
def test_bad_input_writes_nothing(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from spikeplug.cli import app

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())
