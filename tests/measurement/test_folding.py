"""Tables at any width: nothing is cut off, every part names its rows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from spikeplug.measurement.table import folded, headline, titled


def table(columns=10):
    found = titled("Errors", "operator", "d", "inputs", numbers=[f"figure {number}" for number in range(columns)])
    for operator in ("attention_weights", "softmax"):
        for dimension in ("8", "8192"):
            found.add_row(operator, dimension, "adversarial", *(f"{1.234e-10 * n:.3g}" for n in range(1, columns + 1)))
    found.caption = "the end"
    return found


def shown(table, width):
    console = Console(file=io.StringIO(), width=width)
    for part in folded(table, width):
        console.print(part)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_nothing_is_lost_at_any_width(width):
    text = shown(table(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    parts = len(folded(table(), width))
    for name in ("attention_weights", "softmax"):
        assert text.count(name) == 2 * parts
    assert text.count("adversarial") == 4 * parts
    for number in range(10):
        assert text.count(f"figure {number}") == 1
        assert text.count(f" {1.234e-10 * (number + 1):.3g} ") + text.count(f" {1.234e-10 * (number + 1):.3g}\n") == 4
    assert text.count("the end") == 1


def test_parts_are_numbered_and_a_table_that_fits_is_one():
    assert [part.title for part in folded(table(), 200)] == ["Errors"]
    titles = [part.title for part in folded(table(), 80)]
    assert titles == [f"Errors ({number} of {len(titles)})" for number in range(1, len(titles) + 1)]
    assert len(titles) > 1


def test_words_wrap_and_are_not_cut():
    found = titled("Facts", "operator", "neurons", numbers=("bytes",))
    found.add_column("scale")
    found.add_row("rms_norm", "9 square + 1 root + 8 division", "12", "a power of two per vector, and more words")
    words = " ".join(shown(found, 60).split())
    for word in ("rms_norm", "square", "division", "12", "power", "more"):
        assert word in words


def test_sections_between_rows_stay():
    found = titled("Both", "name", numbers=("x",))
    found.add_row("one", "1")
    found.add_section()
    found.add_row("mean", "1")
    assert [row.end_section for row in folded(found, 80)[0].rows] == [True, False]


def test_the_line_of_a_model():
    facts = {"name": "tiny", "type": "llama", "parameters": 1_340_000, "dtype": "float32"}
    assert headline(facts) == "tiny (llama, 1.3 M parameters, float32)"
