"""Run exported circuits in other people's simulators, and compare SANA-FE's energies with predicted ones.

    python benchmarks/emulators.py export FOLDER         write the NIR files, operands and the integers they should give
    python benchmarks/emulators.py run FOLDER NAME...    run them in these simulators, where they are installed
    python benchmarks/emulators.py energy FOLDER         run one-core circuits in SANA-FE, and price predicted events
    python benchmarks/emulators.py page FOLDER [--write] print or write the tables of docs/emulators.md

`make emulators` does all of it. `run` needs numpy, nir and the simulator, and of spikeplug the sources alone
(PYTHONPATH=src). `page` exits with 1 if a simulator gave another integer or energy.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spikeplug.errors import SpikeplugError
from spikeplug.hardware.emulators import EMULATORS, run

PAGE, EXPORT_PAGE = "docs/emulators.md", "docs/export.md"
#: Simulators of chips step neuron by neuron: they run the operands of 4 bits.
SLOW = ("sanafe", "lava", "nengo_loihi")
#: form -> (verb, neurons, how the file writes a reset by subtraction, what the neurons are)
FORMS = {
    "ordered": ("divide", "ordered", "synapse", "ordered group"),
    "restoring, reset by a synapse": ("divide", "restoring", "synapse", "restoring neuron, reset by a synapse"),
    "restoring, reset in the metadata": ("divide", "restoring", "neuron", "restoring neuron, reset in the metadata"),
    "root": ("root", "ordered", "synapse", "ordered root"),
}


#: Words of a refusal -> why there is no NIR form.
REASONS = {
    "it rounds when it leaks": "a leak that rounds",
    "spikes gate its leak": "spikes gate a leak",
    "gated by other spikes": "spikes gate a synapse",
    "spikes gate its own": "spikes gate a neuron before the last step",
    "is the membrane of": "a threshold or weight is the membrane of another neuron",
    "computed by another stage": "a threshold or weight is computed by another stage",
    "give it as a parameter": "a threshold or weight is an operand: exported, with a parameter",
    "saturates": "a membrane saturates",
    "a float64 holds": "a membrane wider than a float64 holds",
    "acts in one step alone": "a synapse between neurons acts in one step alone",
    "read after its reset": "a membrane is read after its reset",
    "read from several populations": "the result is read from several populations",
}


def export(folder: Path) -> None:
    """Write the files of each form and width: one per denominator where that is a parameter."""
    import torch

    from spikeplug.circuit import run as executed
    from spikeplug.hardware.nir import to_nir, write
    from spikeplug.hardware.verbs import circuit_of_verb

    for bits in (4, 8):
        most = 1 << bits
        for form, (verb, neurons, reset, _) in FORMS.items():
            circuit = circuit_of_verb(verb, bits, neurons)  # type: ignore[arg-type]
            pairs = np.stack(np.meshgrid(np.arange(most), np.arange(most), indexing="ij"), -1).reshape(-1, 2)
            free = {"numerator": pairs[:, 0], "denominator": pairs[:, 1]}
            cases: list[tuple[dict[str, int], dict[str, Any]]] = [({}, free)]
            if verb == "root":
                cases = [({}, {"square": np.arange(most * most)})]
            elif neurons == "restoring":
                cases = [({"denominator": b}, {"numerator": np.arange(most)}) for b in range(most)]
            for number, (parameters, operands) in enumerate(cases):
                batch = len(next(iter(operands.values())))
                all_of_them = {**operands, **{name: np.full(batch, x) for name, x in parameters.items()}}
                tensors = {name: torch.from_numpy(np.asarray(x)).unsqueeze(-1) for name, x in all_of_them.items()}
                stem = folder / f"{bits} {form}" / f"{number:03d}"
                write(to_nir(circuit, parameters, reset=reset), stem.with_suffix(".nir"))  # type: ignore[arg-type]
                np.savez(
                    stem.with_suffix(".npz"), wanted=executed(circuit, tensors)["result"][:, 0].numpy(), **operands
                )


def measured(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield, for each form and width, how many integers are equal, or why the simulator cannot run it."""
    import nir

    emulator = EMULATORS[name]
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        bits, form = place.name.split(" ", 1)
        if name in SLOW and bits != "4":
            continue
        row: dict[str, Any] = {"simulator": name, "version": emulator.version, "bits": int(bits), "form": form}
        equal = total = 0
        start = time.perf_counter()
        try:
            for path in sorted(place.glob("*.nir")):
                stored = np.load(path.with_suffix(".npz"))
                operands = {key: stored[key] for key in stored.files if key != "wanted"}
                found = run(name, nir.read(str(path)), operands)
                equal += int((found == stored["wanted"]).sum())
                total += len(found)
            row |= {"equal": equal, "total": total, "seconds": time.perf_counter() - start}
        except SpikeplugError as error:
            row["refused"] = str(error)
        yield row


def energies() -> Iterator[dict[str, Any]]:
    """Yield, for each circuit on one core, the energy by predicted events and by SANA-FE, in pJ."""
    import torch

    from spikeplug.hardware.emulators.sanafe import predicted, simulated
    from spikeplug.hardware.nir import to_nir
    from spikeplug.hardware.rasters import encode
    from spikeplug.hardware.tables import load_table
    from spikeplug.hardware.verbs import VERBS, circuit_of_verb
    from spikeplug.neurons import Events, Scope
    from spikeplug.numerics import Numerics
    from spikeplug.primitives.arithmetic import Counted
    from spikeplug.primitives.divide import DivideSpec
    from spikeplug.primitives.divide.count import ordered_group
    from spikeplug.realisation import Realisation

    prices = {term: float(price) for term, price in load_table("loihi1-sanafe").prices.items()}
    random = np.random.default_rng(0)

    def row(what: str, graph: Any, free: dict[str, Any], events: Events, population: str) -> dict[str, Any]:
        found = simulated(
            graph, encode(graph, free), cores=1, reader=graph.metadata["spikeplug"]["readout"]["of"] == "spikes"
        )
        batch = len(next(iter(free.values())))
        ours = predicted(events, population, prices, steps=int(graph.metadata["spikeplug"]["steps"]))
        return {
            "what": what,
            "batch": batch,
            "predicted": ours / batch,
            "sanafe": found.energy * 1e12 / batch,
            "counts": {name: count / batch for name, count in found.counts.items()},
        }

    for bits in (4, 8):
        levels, most, batch = 1 << bits, (1 << bits) - 1, 3 if bits == 8 else 32
        a, b = (random.integers(1, levels, batch) for _ in range(2))
        a[0] = most  # the count code then has as many steps as the largest operand
        spec, events = DivideSpec(bits, bits, bits, levels), Events()
        ordered_group(torch.from_numpy(a), torch.from_numpy(b), spec, Scope(events, "divide"), steps=most)
        graph = to_nir(circuit_of_verb("divide", bits, "ordered"))
        yield row(
            f"ordered group, N = {levels}, one spike per step",
            graph,
            {"numerator": a, "denominator": b},
            events,
            "divide",
        )
        for verb, neurons, operand, high, population in (
            ("divide", "restoring", "numerator", most, "divide"),
            ("root", "ordered", "square", most * most, "root"),
            ("exponential", "ordered", "distance", most, "exp/segment"),
            ("gate", "restoring", "spikes", most, "product"),
        ):
            given = random.integers(0, high + 1, batch)
            held = {"divide": {"denominator": int(b[-1])}, "gate": {"value": int(b[0])}}.get(verb, {})
            events = Events(Realisation(division=neurons, norm=neurons))  # type: ignore[arg-type]
            tensors = {operand: torch.from_numpy(given).unsqueeze(-1)}
            tensors |= {name: torch.full((batch, 1), value) for name, value in held.items()}
            VERBS[verb](Counted(Numerics(), "", events), lambda name, low, high, x=tensors: x[name], bits)
            graph = to_nir(
                circuit_of_verb(verb, bits, neurons),  # type: ignore[arg-type]
                held,
                population=population,
                reset="neuron",
            )
            what = {
                "divide": f"restoring neuron, N = {levels}; hypothetical",
                "root": f"ordered root, N = {most}",
                "exponential": f"segments of the exponential, N = {min(32, levels) - 1}",
                "gate": f"rise of the exponential, a product of {bits} bits; hypothetical",
            }[verb]
            yield row(what, graph, {operand: given}, events, population)


def coverage() -> str:
    """Return the table of all stages of all operators: how many have a NIR form, and why the others have none."""
    import torch

    from spikeplug.hardware.nir import to_nir
    from spikeplug.operators import LINEAR, RECORDS
    from spikeplug.operators.recording import circuit_of

    found: Counter[str] = Counter()
    names = [name for name, record in {**RECORDS, **LINEAR}.items() if record.integers is not None]
    for name in names:
        weight = torch.tensor([[3]], dtype=torch.int8) if name == "linear" else None
        circuit = circuit_of(name, 1, "narrow", weight=weight)
        seen: Counter[str] = Counter()
        for _, stage in circuit.stages:
            seen[stage.name] += 1
            try:
                to_nir(circuit, population=f"{stage.name}#{seen[stage.name]}")
                found["exported"] += 1
            except SpikeplugError as error:
                found[next(why for words, why in REASONS.items() if words in str(error))] += 1
    rows = [f"| {why} | {count} |" for why, count in found.most_common()]
    head = f"| of the {sum(found.values()):,} stages of {len(names)} operators (narrow, one element) | |"
    return "\n".join([head, "|---|---:|", *rows])


def quotients(rows: list[dict[str, Any]]) -> str:
    """Return the table of what each simulator gives."""
    lines = ["| simulator | version | neurons | 4 bits: equal / all | 8 bits: equal / all |", "|---|---|---|---:|---:|"]
    for name in EMULATORS:
        for form, (*_, what) in FORMS.items():
            found = {row["bits"]: row for row in rows if row["simulator"] == name and row["form"] == form}
            if any("total" in row for row in found.values()):
                version = next(iter(found.values()))["version"]
                lines.append(f"| {name} | {version} | {what} | {_cell(found.get(4))} | {_cell(found.get(8))} |")
    return "\n".join(lines)


def simulators() -> str:
    """Return the table of the simulators: what each lacks, and what it reads differently."""
    lines = [
        "| simulator | widest membrane | why it runs no more | reads differently | install |",
        "|---|---:|---|---|---|",
    ]
    for x in EMULATORS.values():
        lines.append(f"| {x.name} | {x.bits} bits | {x.lacks} | {x.differs} | `{x.install}` |")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or "refused" in row:
        return "" if row is None else "refused"
    return f"{row['equal']:,} / {row['total']:,}"


def energy_table(rows: list[dict[str, Any]]) -> str:
    """Return the table of energies, per operation."""
    lines = [
        "| neurons on one core | neuron steps | soma spikes | messages | synops | predicted, pJ | SANA-FE, pJ | "
        "relative difference |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        counts = " | ".join(
            f"{row['counts'][name]:,.1f}" for name in ("neuron_steps", "soma_spikes", "messages", "synops")
        )
        lines.append(
            f"| {row['what']} | {counts} | {row['predicted']:,.1f} | {row['sanafe']:,.1f} | "
            f"{_shown(_difference(row))} |"
        )
    return "\n".join(lines)


def _difference(row: dict[str, Any]) -> float:
    return abs(float(row["predicted"] / row["sanafe"]) - 1)


def _shown(difference: float) -> str:
    return "< 1e-12" if difference < 1e-12 else f"{difference:.0e}"


def page(folder: Path, write_it: bool) -> int:
    """Print the tables, or write them; return 1 if a simulator gave another integer or energy."""
    rows = [row for path in sorted(folder.glob("run-*.json")) for row in json.loads(path.read_text())]
    costs = json.loads((folder / "energy.json").read_text())
    parts = {"quotients": quotients(rows), "simulators": simulators(), "energies": energy_table(costs)}
    parts["stages"] = coverage()
    for part, text in parts.items():
        if write_it:
            import pages

            pages.write(EXPORT_PAGE if part == "stages" else PAGE, part, text)
        else:
            print(text, end="\n\n")
    wrong = [row for row in rows if row.get("equal") != row.get("total")] + [
        x for x in costs if _difference(x) >= 1e-12
    ]
    for row in wrong:
        print("DIFFERS:", row, file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("action", choices=("export", "run", "energy", "page"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(EMULATORS))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.action == "export":
        export(given.folder)
    elif given.action == "run":
        for name in given.names:
            print(name, platform.python_version(), file=sys.stderr)
            rows = list(measured(name, given.folder))
            (given.folder / f"run-{name}.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    elif given.action == "energy":
        (given.folder / "energy.json").write_text(json.dumps(list(energies()), indent=2) + "\n", encoding="utf-8")
    else:
        return page(given.folder, given.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
