"""Write the data of the example tasks, the same every time: `python examples/lm-eval/make.py`."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

SERIES = {
    "days": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "months": [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
    "numbers": ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
    "ordinals": ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"],
    "letters": list("ABCDEFGHIJKLMNOP"),
    "tens": ["ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"],
}


def items() -> list[dict[str, object]]:
    """Return multiple-choice items that ask what comes next in a series."""
    draw = random.Random(0)
    found: list[dict[str, object]] = []
    for series in SERIES.values():
        for start in range(len(series) - 4):
            right = series[start + 4]
            wrong = draw.sample(
                [word for word in series if word not in series[start : start + 5]], k=min(3, len(series) - 5)
            )
            choices = [right, *wrong]
            draw.shuffle(choices)
            found.append(
                {"query": ", ".join(series[start : start + 4]) + ",", "choices": choices, "label": choices.index(right)}
            )
    return found


def texts() -> list[dict[str, object]]:
    """Return short texts to predict."""
    found: list[dict[str, object]] = []
    for name, series in SERIES.items():
        steps = " ".join(f"After {first} comes {second}." for first, second in itertools.pairwise(series))
        found.append({"text": f"These are the {name}: {', '.join(series)}. {steps}"})
    return found


def main() -> None:
    """Write both files into the folder of this one."""
    for name, records in (("series.jsonl", items()), ("texts.jsonl", texts())):
        lines = [json.dumps(record) + "\n" for record in records]
        Path(__file__).with_name(name).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
