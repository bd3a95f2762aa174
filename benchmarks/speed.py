"""Write the tables of docs/speed.md, and a sentence into README.md: `python benchmarks/speed.py FOLDER`.

Reads bench.json and bench.csv in FOLDER, as `make bench` makes them, and copies bench.csv to speed-cpu.csv here.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pages

KEPT = Path(__file__).parent / "speed-cpu.csv"


def table(run: dict[str, Any]) -> str:
    """Return two Markdown tables: operators, then the model."""
    cases = _cases(run)
    machine = run["environment"]
    where = f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}"
    lines = [
        f"Time of a spiking operator over that of torch's op and of a plain copy, and of the published float recipe "
        f"over that of the spiking operator: medians over interleaved rounds, float32, results allocated by all "
        f"sides ({where}; "
        f"`make bench`, [all rows](../benchmarks/speed-cpu.csv)):",
        "",
        "| | shape | / torch | / copy | recipe / spiking |",
        "|---|---|---:|---:|---:|",
    ]
    for (section, name, model, shape), arms in cases.items():
        if section == "operators" and "exact" in arms:
            figures = (_of(arms, "exact"), _of(arms, "copy"), _published(arms))
            lines.append(f"| {name} | {model}, {shape} | {' | '.join(figures)} |")
    lines += ["", f"| {run['arguments']['model']}, spiking / exact | time | peak memory |", "|---|---:|---:|"]
    for (section, name, _, shape), arms in cases.items():
        if section == "model" and "exact" in arms and "simulated" not in arms:
            lines.append(f"| {name}, {shape} | {_of(arms, 'exact')} | {_memory(arms)} |")
    return "\n".join(lines)


def line(run: dict[str, Any]) -> str:
    """Return the README's sentence: whole models."""
    times = {
        (name, shape): _of(arms, "exact")
        for (section, name, _, shape), arms in _cases(run).items()
        if section == "model" and "exact" in arms and "simulated" not in arms
    }
    (prefill, prompt), (decode, cached) = (
        max((case for case in times if case[0] == name), key=lambda case: int(re.sub(r"\D", "", case[1])))
        for name in ("prefill", "decode")
    )
    machine = run["environment"]
    return (
        f"- **Speed**, SmolLM2-135M, spiking / exact: {times[prefill, prompt]} for a prompt of {prompt}, "
        f"{times[decode, cached]} for a token {cached} ({machine['cpu']}, {machine['threads']} threads; `make bench`, "
        "[all figures](docs/speed.md))."
    )


def _cases(run: dict[str, Any]) -> dict[tuple[str, ...], dict[str, dict[str, Any]]]:
    cases: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for row in run["rows"]:
        case = tuple(row[name] for name in ("section", "name", "model", "shape"))
        cases.setdefault(case, {})[row["arm"]] = row
    return cases


def _of(arms: dict[str, dict[str, Any]], base: str) -> str:
    value = arms["kernel"][f"times_{base}"]
    return "" if value is None else f"{value:.2f}"


def _published(arms: dict[str, dict[str, Any]]) -> str:
    if "published" not in arms:
        return ""
    return f"{arms['published']['times_exact'] / arms['kernel']['times_exact']:.0f}"


def _memory(arms: dict[str, dict[str, Any]]) -> str:
    ours, theirs = (arms[name].get("peak_mib") for name in ("kernel", "exact"))
    return f"{ours / theirs:.2f}" if ours and theirs else ""


def main(folder: Path) -> None:
    run = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    pages.write("docs/speed.md", "speed", table(run))
    pages.write("README.md", "speed", line(run))
    shutil.copyfile(folder / "bench.csv", KEPT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
