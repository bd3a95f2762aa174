"""Write a circuit as synthesisable Verilog-2001: one module, sequenced by one counter of time steps.

A stage begins when all that it needs has settled, and takes a clock cycle per time step; stages that do not need each
other run side by side. A neuron is a register with the width of its membrane. In its first step it reads its start in
place of the register, so that nothing has to be loaded. Trains are bits of settled integers, chosen by the counter;
spikes are combinational, in the order of the neurons. What has settled is held until the next start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spikeplug.circuit import Circuit, Constant, Gate, Held, Neuron, Port, Read, Signal, Source, Stage, Train, Wiring
from spikeplug.circuit.graph import needed
from spikeplug.errors import SpikeplugError

#: Neurons that a module lists one by one.
MOST_NEURONS = 1 << 14
_NOTHING = "1'sd0"
#: Bits of an integer: those of the closed form are int64.
MOST_BITS = 64


@dataclass(frozen=True)
class Vector:
    """Describe a port of a module: integers side by side, element 0 in the lowest bits.

    elements  how many
    width     bits of each
    signed    whether they are in two's complement
    """

    name: str
    elements: int
    width: int
    signed: bool

    @property
    def bits(self) -> int:
        """Return the bits of the whole port."""
        return self.elements * self.width

    def word(self, integers: Sequence[int]) -> int:
        """Return the bits of the port, as an unsigned number, that hold these integers, one per element."""
        mask = (1 << self.width) - 1
        return sum((x & mask) << place * self.width for place, x in enumerate(integers))

    def integers(self, word: int) -> list[int]:
        """Return the integers in the bits of the port; the inverse of `word`."""
        mask, offset = (1 << self.width) - 1, 1 << self.width - 1 if self.signed else 0
        return [((word >> place * self.width) + offset & mask) - offset for place in range(self.elements)]


@dataclass(frozen=True)
class Module:
    """Hold a module of Verilog, and what a test bench has to know of it.

    inputs   by the name of the operand, in the order of the ports
    outputs  by the name of the output
    cycles   clock edges from the one that takes `start` to the one that raises `done`
    """

    name: str
    text: str
    inputs: dict[str, Vector]
    outputs: dict[str, Vector]
    cycles: int


def verilog(circuit: Circuit) -> Module:
    """Return the module of a circuit, which has its name.

    The module takes operands `in_NAME` while `start` is high; they have to stay until `done`. It then holds the
    outputs `out_NAME` until the next start. `rst` is synchronous.
    Errors: SpikeplugError for too many neurons, and for integers wider than 64 bits.
    """
    neurons = sum(len(stage.neurons) for _, stage in circuit.stages)
    if neurons > MOST_NEURONS:
        raise SpikeplugError(
            f"{circuit.name} has {neurons:,} neurons, more than the {MOST_NEURONS:,} that a Verilog module lists: take "
            "fewer elements, fewer bits or division='restoring'."
        )
    widest = max((signal.width for signal in circuit.signals), default=0)
    if widest > MOST_BITS:
        raise SpikeplugError(
            f"{circuit.name} has integers of {widest} bits, more than the closed form's {MOST_BITS}: take narrower "
            "numerics."
        )
    return _Writer(circuit).module()


def schedule(circuit: Circuit) -> list[int]:
    """Return when each signal has settled: the time step from the start at which its last neuron has run.

    A stage begins with the last of what it needs; wirings and tables take no step.
    """
    settled: list[int] = []
    for signal in circuit.signals:
        begins = max((settled[number] for number in needed(signal.node)), default=0)
        settled.append(begins + (signal.node.steps if isinstance(signal.node, Stage) else 0))
    return settled


@dataclass(frozen=True)
class _Spike:
    """Hold what a train sends, or a product of several: 1-bit conditions, 1-bit signs, and signed amounts.

    Its value is 0 unless all conditions hold; else the product of the amounts, negated once per sign.
    """

    conditions: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    amounts: tuple[str, ...] = ()
    low: int = 0
    high: int = 1


class _Writer:
    """Write the parts of one module."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.settled = schedule(circuit)
        self.last = max(self.settled, default=0)
        self.count_bits = max(1, self.last.bit_length())
        self.tables: dict[tuple[tuple[int, ...], int], str] = {}
        self.clocks: dict[str, str] = {}  # the wires of the counter, by name
        self.updates: dict[str, list[str]] = {}  # the assignments of registers, by the wire that lets them
        self.functions: list[str] = []
        self.body: list[str] = []

    def module(self) -> Module:
        """Return the module."""
        name = _identifier(self.circuit.name)
        inputs = {port: self._vector("in", port, numbers) for port, numbers in self.circuit.ports.items()}
        outputs = {o.name: self._vector("out", o.name, o.signals) for o in self.circuit.outputs}
        for number, signal in enumerate(self.circuit.signals):
            self._signal(number, signal, inputs)
        assigned = [
            f"assign {outputs[o.name].name}[{_span(place * outputs[o.name].width, outputs[o.name].width)}] = "
            f"{self.value(number)};"
            for o in self.circuit.outputs
            for place, number in enumerate(o.signals)
        ]
        cycles = max(1, self.last)
        lines = [
            *self._heading(inputs, outputs, cycles),
            "`default_nettype none",
            f"module {name} (",
            "    input wire clk,",
            "    input wire rst,",
            "    input wire start,",
            "    output reg done,",
            ",\n".join(
                [f"    input wire [{v.bits - 1}:0] {v.name}" for v in inputs.values()]
                + [f"    output wire [{v.bits - 1}:0] {v.name}" for v in outputs.values()]
            ),
            ");",
            "",
            "// The time step.",
            "reg running;",
            f"reg [{self.count_bits - 1}:0] count;",
            "always @(posedge clk)",
            "    if (rst) begin",
            "        running <= 1'b0;",
            "        done <= 1'b0;",
            "        count <= 0;",
            "    end else if (start) begin",
            "        running <= 1'b1;",
            "        done <= 1'b0;",
            "        count <= 0;",
            "    end else if (running) begin",
            "        count <= count + 1'b1;",
            f"        if (count == {cycles - 1}) begin",
            "            running <= 1'b0;",
            "            done <= 1'b1;",
            "        end",
            "    end",
            *self.clocks.values(),
            *self.functions,
            *self.body,
            "",
            "// The membranes, and the counts of spikes.",
            *(
                line
                for enable, found in self.updates.items()
                for line in (
                    "always @(posedge clk)",
                    f"    if ({enable}) begin",
                    *(f"        {x}" for x in found),
                    "    end",
                )
            ),
            "",
            *assigned,
            "endmodule",
            "`default_nettype wire",
        ]
        return Module(name, "\n".join(lines) + "\n", inputs, outputs, cycles)

    def _heading(self, inputs: dict[str, Vector], outputs: dict[str, Vector], cycles: int) -> list[str]:
        def port(vector: Vector) -> str:
            kind = "signed" if vector.signed else "unsigned"
            return f"//   {vector.name}: {vector.elements} x {vector.width} bits, {kind}; element 0 in the lowest bits"

        return [
            f"// {self.circuit}.",
            f"// done rises {cycles} clock edges after the one that takes start; inputs stay until then.",
            *map(port, (*inputs.values(), *outputs.values())),
        ]

    def _vector(self, prefix: str, name: str, numbers: Sequence[int]) -> Vector:
        signals = [self.circuit.signals[number] for number in numbers]
        low, high = min(s.low for s in signals), max(s.high for s in signals)
        return Vector(_identifier(f"{prefix}_{name}"), len(numbers), Signal(Constant(0), low, high).width, low < 0)

    # Signals.

    def value(self, number: int) -> str:
        """Return a settled signal as a signed expression."""
        signal = self.circuit.signals[number]
        if isinstance(signal.node, Constant):
            return _constant(signal.node.value)
        return f"s{number}" if signal.low < 0 else f"$signed({{1'b0, s{number}}})"

    def _signal(self, number: int, signal: Signal, inputs: dict[str, Vector]) -> None:
        node = signal.node
        if isinstance(node, Constant):
            return
        if isinstance(node, Port):
            vector = inputs[node.name]
            place = self.circuit.ports[node.name].index(number)
            self._wire(number, f"{vector.name}[{_span(place * vector.width, signal.width)}]")
        elif isinstance(node, Wiring):
            value = _shifted(self.value(node.source), -node.places)
            value = f"-{value}" if node.sign < 0 else value
            if node.offset:
                value += f" + {_constant(node.offset)}"
            self._wire(number, f"({value}) & {_constant(node.mask)}" if node.mask is not None else value)
        elif isinstance(node, Read):
            self._wire(number, f"{self._table(node)}(s{node.source})")
        else:
            self._stage(number, node)

    def _wire(self, number: int, value: str) -> None:
        signal = self.circuit.signals[number]
        self.body.append(f"wire {_range(signal.width, signal.low < 0)} s{number} = {value};")

    def _table(self, node: Read) -> str:
        """Return the function that reads a table, one for all reads of it."""
        index = self.circuit.signals[node.source].width
        key = (node.table, index)
        if key not in self.tables:
            name = self.tables[key] = f"table{len(self.tables)}"
            width = Signal(node, min(node.table), max(node.table)).width
            entries = [f"        {index}'d{place}: {name} = {_constant(x)};" for place, x in enumerate(node.table)]
            self.functions += [
                "",
                f"// {node.population}",
                f"function [{width - 1}:0] {name};",
                f"    input [{index - 1}:0] place;",
                "    case (place)",
                *entries,
                f"        default: {name} = 0;",
                "    endcase",
                "endfunction",
            ]
        return self.tables[key]

    # The counter.

    def _clock(self, name: str, declaration: str) -> str:
        self.clocks.setdefault(name, f"wire {declaration};")
        return name

    def _window(self, number: int) -> tuple[str, int, int]:
        """Return the wire that is high while a stage runs, its first step and its last."""
        stage = self.circuit.signals[number].node
        assert isinstance(stage, Stage)
        last, first = self.settled[number] - 1, self.settled[number] - stage.steps
        if first == last:
            condition = f"count == {first}"
        else:
            condition = f"count <= {last}" if first == 0 else f"count >= {first} && count <= {last}"
        name = f"during_{first}_{last}"
        return self._clock(name, f"{name} = running && {condition}"), first, last

    def _now(self, step: int) -> str:
        name = f"at_{step}"
        return self._clock(name, f"{name} = count == {step}")

    # Stages.

    def _stage(self, number: int, stage: Stage) -> None:
        begins = self.settled[number] - stage.steps
        self.body += ["", f"// {stage.name}: time steps {begins} to {self.settled[number] - 1}"]
        _Stage(self, number, stage).write()


class _Stage:
    """Write one stage."""

    def __init__(self, writer: _Writer, number: int, stage: Stage) -> None:
        self.writer, self.number, self.stage = writer, number, stage
        self.signals = writer.circuit.signals
        self.body = writer.body
        self.reads_states = {
            held.source
            for neuron in stage.neurons
            for held in (*(t.weight for t in neuron.current), *(neuron.threshold or ()))
            if isinstance(held, Held) and held.state
        }
        self.sent: list[_Spike] = []

    def write(self) -> None:
        """Write the trains, the neurons, and the wire of the stage's signal."""
        stage, number = self.stage, self.number
        if not stage.steps:  # nothing runs: the membrane at the start
            assert isinstance(stage.result, int)
            self.writer._wire(number, self._sum(stage.neurons[stage.result].start))
            return
        self.window, self.first, self.last = self.writer._window(number)
        self.sent = [self._train(place, train) for place, train in enumerate(stage.trains)]
        for place, neuron in enumerate(stage.neurons):
            self._declare(place, neuron)
        for place, neuron in enumerate(stage.neurons):
            self._neuron(place, neuron)
        if isinstance(stage.result, int):
            self.writer._wire(number, f"n{number}_{stage.result}")
            return
        width = self.signals[number].width
        self.body.append(f"reg [{width - 1}:0] c{number};")
        counted = _joined([f"f{number}_{place}" for place in stage.result], " + ")
        at_end = self.window if stage.steps == 1 else f"{self.window} && {self.writer._now(self.last)}"
        self.writer.updates.setdefault(at_end, []).append(f"c{number} <= {counted};")
        self.writer._wire(number, f"c{number}")

    # Trains.

    def _train(self, place: int, train: Train) -> _Spike:
        signal = self.signals[train.signal]
        value = self.writer.value(train.signal)
        when = () if train.only is None else self._when(train.only)
        if train.form == "graded":
            return _Spike(when, (), (value,), min(signal.low, 0), max(signal.high, 0))
        if train.form in ("bits", "magnitude"):
            return self._digits(place, train, signal, when)
        name = f"t{self.number}_{place}"
        beyond = self._step() if train.form == "until" else "0"
        self.body.append(
            f"wire {name} = {value} {'<' if train.form == 'negative' else '>'} {beyond};  // {train.population}"
        )
        return _Spike((*when, name))

    def _digits(self, place: int, train: Train, signal: Signal, when: tuple[str, ...]) -> _Spike:
        """Send the digits of the magnitude, the most significant first: one vector, from which the counter chooses."""
        name, digits, steps = f"t{self.number}_{place}", train.digits, self.stage.steps
        magnitude, width, sign = self._magnitude(name, train.signal)
        wanted = train.steps * digits
        if isinstance(signal.node, Constant):
            bits = f"{wanted}'d{abs(signal.node.value) & (1 << wanted) - 1}"
        elif width > wanted:
            bits = f"{magnitude}[{wanted - 1}:0]"
        else:
            bits = f"{{{wanted - width}'d0, {magnitude}}}" if width < wanted else magnitude
        silent = (steps - train.steps) * digits  # bits of the steps after the last digit
        if silent > 0:
            bits = f"{{{bits}, {silent}'d0}}"
        total = max(wanted, steps * digits)
        self.body.append(f"wire [{total - 1}:0] {name} = {bits};  // {train.population}")
        left, beyond = self._left(), max(0, -silent)
        at = f"{left} + {beyond}" if beyond else left
        signs = (sign,) if sign and train.form == "bits" else ()
        most = (1 << digits) - 1
        low = -most if signs else 0
        if digits == 1:
            return _Spike((*when, f"{name}[{at}]"), signs, (), low, most)
        at = str(int(at) * digits) if at.isdigit() else f"({at}) * {digits}"
        return _Spike(when, signs, (f"$signed({{1'b0, {name}[{at} +: {digits}]}})",), low, most)

    def _magnitude(self, name: str, number: int) -> tuple[str, int, str]:
        """Return the vector that holds the magnitude of a signal, its width, and the bit of its sign if it has one."""
        signal, value = self.signals[number], f"s{number}"
        if isinstance(signal.node, Constant):
            return "", 0, "1'b1" if signal.node.value < 0 else ""
        if signal.low >= 0:
            return value, signal.width, ""
        sign = f"{value}[{signal.width - 1}]"
        self.body.append(f"wire [{signal.width - 1}:0] {name}_size = {sign} ? -{value} : {value};")
        return f"{name}_size", signal.width, sign

    # Time.

    def _left(self) -> str:
        """Return how many steps are left after this one."""
        if self.stage.steps == 1:
            return "0"
        name = f"left_{self.first}_{self.last}"
        return self.writer._clock(name, f"{self._steps_range()} {name} = {self.window} ? {self.last} - count : 0")

    def _step(self) -> str:
        """Return the step of the stage, signed."""
        if self.stage.steps == 1:
            return "0"
        name = f"step_{self.first}_{self.last}"
        since = f"count - {self.first}" if self.first else "count"
        self.writer._clock(name, f"{self._steps_range()} {name} = {self.window} ? {since} : 0")
        return f"$signed({{1'b0, {name}}})"

    def _steps_range(self) -> str:
        return f"[{(self.stage.steps - 1).bit_length() - 1}:0]"

    def _when(self, step: int) -> tuple[str, ...]:
        """Return the condition of one step of the stage; none if it has no other."""
        if self.stage.steps == 1 and step == 0:
            return ()
        return (self.writer._now(self.first + step),) if step < self.stage.steps else ("1'b0",)

    # Neurons.

    def _declare(self, place: int, neuron: Neuron) -> None:
        """Write the register of a membrane, if a later step or another stage reads it; and the membrane of the step."""
        start, width = self._sum(neuron.start), neuron.width
        kept = neuron.leak is not None or neuron.leaks_if or place in self.reads_states
        name = f"{self.number}_{place}"
        self.body.append(f"// {neuron.population}: {neuron.kind}, {width} bits")
        if self._registered(place, neuron):
            self.body.append(f"reg {_range(width)} n{name};")
        if kept:
            before = start if self.stage.steps == 1 else f"{self.writer._now(self.first)} ? {start} : n{name}"
            self.body.append(f"wire {_range(width)} v{name} = {before};")

    def _registered(self, place: int, neuron: Neuron) -> bool:
        kept = neuron.leak is not None or neuron.leaks_if or place in self.reads_states
        return place == self.stage.result or bool(kept and self.stage.steps > 1)

    def _neuron(self, place: int, neuron: Neuron) -> None:
        """Write a neuron in one time step: its membrane, its spike, and what its register takes."""
        name, width = f"{self.number}_{place}", neuron.width
        terms = [self._leaked(f"v{name}", neuron)]
        terms += [self._term(term.weight, term.gates, term.step) for term in neuron.current]
        total = _joined([term for term in terms if term != "0"] or [_NOTHING], " + ")
        if neuron.ceiling is None:
            self.body.append(f"wire {_range(width)} m{name} = {total};")
        else:
            wide = self._sum_width(neuron)
            most = _constant(neuron.ceiling)
            self.body.append(f"wire {_range(wide)} a{name} = {total};")
            self.body.append(f"wire {_range(width)} m{name} = a{name} > {most} ? {most} : a{name};")
        after = f"m{name}"
        if neuron.threshold is not None:
            threshold = self._sum(neuron.threshold)
            low, high = (sum(ends) for ends in zip(*map(self._bounds, neuron.threshold), strict=True))
            beyond = max(width, Signal(Constant(0), min(low, -1), high).width) + 1
            self.body.append(f"wire {_range(beyond)} d{name} = m{name} - ({threshold});")
            gates = self._product(neuron.fires_if)
            fires = " && ".join([f"!d{name}[{beyond - 1}]", *gates.conditions])
            self.body.append(f"wire f{name} = {fires};")
            after = f"f{name} ? d{name} : m{name}"
        if self._registered(place, neuron):
            self.writer.updates.setdefault(self.window, []).append(f"n{name} <= {after};")

    def _leaked(self, membrane: str, neuron: Neuron) -> str:
        """Return the membrane after its leak."""
        scaled = "0" if neuron.leak is None else _shifted(membrane, neuron.leak)
        if not neuron.leaks_if:
            only_zero = self.stage.steps == 1 and all(part == 0 for part in neuron.start)
            return "0" if only_zero else scaled
        leaks = " && ".join(self._product(neuron.leaks_if).conditions)
        return f"({leaks} ? {_NOTHING if scaled == '0' else scaled} : {membrane})"

    def _term(self, weight: int | Held, gates: Sequence[Gate], step: int | None) -> str:
        """Return what a synapse adds in a step, as a signed expression."""
        spike = self._product(gates)
        conditions = [*spike.conditions, *(() if step is None else self._when(step))]
        if isinstance(weight, int) and spike.signs and not spike.amounts:
            value, negated = _constant(weight), _constant(-weight)
        else:
            value = " * ".join([self._part(weight) if weight != 1 or not spike.amounts else "", *spike.amounts])
            value = value.removeprefix(" * ")
            negated = f"-({value})"
        if spike.signs:
            value = f"({' ^ '.join(spike.signs)} ? {negated} : {value})"
        return f"({' && '.join(conditions)} ? {value} : {_NOTHING})" if conditions else value

    def _product(self, gates: Iterable[Gate]) -> _Spike:
        product = _Spike(low=1)
        for gate in gates:
            spike = self._source(gate.source)
            if gate.closes:
                if spike.signs or spike.amounts:
                    raise SpikeplugError(
                        f"{self.stage.name}: a graded or signed spike closes a gate; it can only open."
                    )
                shut = " && ".join(spike.conditions)
                spike = _Spike((f"!({shut})" if len(spike.conditions) > 1 else f"!{shut}",))
            ends = [a * b for a in (product.low, product.high) for b in (spike.low, spike.high)]
            product = _Spike(
                product.conditions + spike.conditions,
                product.signs + spike.signs,
                product.amounts + spike.amounts,
                min(ends),
                max(ends),
            )
        return product

    def _source(self, source: Source) -> _Spike:
        return self.sent[source.number] if source.train else _Spike((f"f{self.number}_{source.number}",))

    # Integers that are held.

    def _sum(self, parts: Sequence[int | Held]) -> str:
        constants = sum(part for part in parts if isinstance(part, int))
        held = [self._part(part) for part in parts if isinstance(part, Held)]
        return " + ".join([*held, _constant(constants)] if constants or not held else held)

    def _part(self, part: int | Held) -> str:
        if isinstance(part, int):
            return _constant(part)
        value = f"v{self.number}_{part.source}" if part.state else self.writer.value(part.source)
        value = _shifted(value, -part.places)
        factor = abs(part.factor)
        if factor & (factor - 1) == 0 and factor:
            value = _shifted(value, factor.bit_length() - 1)
        else:
            value = f"{value} * {_constant(factor)}"
        return f"-({value})" if part.factor < 0 else value

    def _bounds(self, part: int | Held) -> tuple[int, int]:
        if isinstance(part, int):
            return part, part
        if part.state:
            neuron = self.stage.neurons[part.source]
            low, high = -1 << neuron.width - 1, (1 << neuron.width - 1) - 1
        else:
            low, high = self.signals[part.source].low, self.signals[part.source].high
        first, second = sorted(((low >> part.places) * part.factor, (high >> part.places) * part.factor))
        return first, second

    def _sum_width(self, neuron: Neuron) -> int:
        """Return the bits that hold the membrane before it saturates."""
        size = 1 << neuron.width - 1 + max(0, neuron.leak or 0)
        for term in neuron.current:
            spike = self._product(term.gates)
            ends = [a * b for a in self._bounds(term.weight) for b in (spike.low, spike.high)]
            size += max(map(abs, ends))
        return size.bit_length() + 1


def _shifted(value: str, places: int) -> str:
    """Return a signed expression times 2^places, floored."""
    if not places:
        return value
    return f"({value} <<< {places})" if places > 0 else f"({value} >>> {-places})"


def _constant(value: int) -> str:
    width = abs(value).bit_length() + 1
    return f"{'-' if value < 0 else ''}{width}'sd{abs(value)}"


def _range(width: int, signed: bool = True) -> str:
    return f"{'signed ' if signed else ''}[{width - 1}:0]"


def _span(low: int, width: int) -> str:
    return f"{low + width - 1}:{low}"


def _joined(parts: Sequence[str], sign: str) -> str:
    """Join the terms of a long sum, on lines of their own."""
    if len(parts) <= 4:
        return sign.join(parts)
    return f"\n       {sign.strip()} ".join(parts)


def _identifier(name: str) -> str:
    return re.sub("[^A-Za-z0-9_]", "_", name)
