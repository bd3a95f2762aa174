"""Write the README's table of results: `python benchmarks/figures.py FOLDER`.

Reads default.json and paper.json in FOLDER, two files of `spikeplug eval --json`, as `make figures` makes them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pages


def table(default: dict[str, Any], paper: dict[str, Any]) -> str:
    """Return a Markdown table: a row per measure, a column per preset and context."""
    columns = [(name, row) for name, run in (("default", default), ("paper", paper)) for row in run["perplexity"]]
    contexts = [row["context"] for row in default["perplexity"]]
    places = default["conversion"]["counts"].items()
    replaced = ", ".join(f"{count['replaced']} {name}" for name, count in places if count["replaced"])
    lines = [
        f"{default['model']['name']}, {default['perplexity'][0]['predictions']:,} predictions per context, English "
        f"text of Python {default['environment']['python']}'s manual; everything replaced: {replaced} "
        f"({default['environment']['cpu']}, {default['environment']['threads']} threads, torch "
        f"{default['environment']['torch']}; `make figures`):",
        "",
        "| | " + " | ".join(f"{name}, context {row['context']}" for name, row in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    rows = {
        "perplexity, exact": "{exact_perplexity:.4f}",
        "perplexity, spiking": "{converted_perplexity:.4f}",
        "change": "**{change_percent:+.3f} %**",
        "next-token agreement": "{agreement_percent:.2f} %",
        "KL of the logits, mean (nats)": "{mean_kl:.1e}",
        "time, spiking / exact": "{time_ratio:.2f}",
    }
    for title, form in rows.items():
        lines.append(f"| {title} | " + " | ".join(form.format(**row) for _, row in columns) + " |")
    choices = {name: run["choices"][0] for name, run in (("default", default), ("paper", paper))}
    picked = [
        f"{run['exact_percent']:.0f} % → {run['converted_percent']:.0f} % ({run['agreement_percent']:.0f} % alike)"
        for run in choices.values()
        for _ in contexts[:1]
    ]
    spread = [picked[0], *[""] * (len(contexts) - 1), picked[1], *[""] * (len(contexts) - 1)]
    lines.append(f"| {choices['default']['items']} multiple-choice items | " + " | ".join(spread) + " |")
    return "\n".join(lines)


def main(folder: Path) -> None:
    default, paper = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("default", "paper")
    )
    pages.write("README.md", "figures", table(default, paper))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
