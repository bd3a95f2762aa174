"""Tables for people: one look, tables of several commands, and tables folded to the width there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Column, Table

#: Width to which words are wrapped before a table is folded, and the widest words that name a row.
_TEXT, _NAME = 24, 40


def titled(title: str, *columns: str, numbers: Iterable[str] = ()) -> Table:
    """Return a table without rows. columns: headers of text columns; numbers: of right-aligned columns after them."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def saturation_table(saturations: Mapping[str, int]) -> Table:
    """Return a table with a row per kind of saturation. saturations: kind -> number of values that were clamped."""
    table = titled("Saturations", "what was clamped", numbers=("values",))
    for event, count in saturations.items():
        table.add_row(event, f"{count:,}")
    if not saturations:
        table.add_row("nothing", "0")
    return table


def headline(facts: Mapping[str, Any]) -> str:
    """Return a line about a model from `loading.model_facts`: "NAME (TYPE, 134.5 M parameters, float32)"."""
    return f"{facts['name']} ({facts['type']}, {facts['parameters'] / 1e6:.1f} M parameters, {facts['dtype']})"


def folded(table: Table, width: int) -> list[Table]:
    """Split a table into as few tables as fit `width` characters, to be shown one below the other. Nothing is cut off.

    Each part repeats the first text columns, which name the row, and has as many of the other columns as fit. Text
    wraps between words, numbers never wrap.
    """
    measured = Console(width=1000)
    widest = [_widest(column, measured) for column in table.columns]
    needs = [_need(column, measured) for column in table.columns]
    names = _naming(table, widest, needs, width)
    parts: list[list[int]] = []
    for place in range(names, len(needs)):
        last = parts[-1] if parts else None
        fits = last is not None and _width([*range(names), *last, place], needs) <= width
        parts = [*parts[:-1], [*last, place]] if last is not None and fits else [*parts, [place]]
    if len(parts) <= 1:
        return [_part(table, range(len(needs)), needs)]
    found = [_part(table, [*range(names), *part], needs) for part in parts]
    for number, part in enumerate(found, 1):
        part.title = f"{table.title or 'Table'} ({number} of {len(found)})"
        part.caption = table.caption if number == len(found) else None
    return found


def _naming(table: Table, widest: list[int], needs: list[int], width: int) -> int:
    """Return how many of the first columns name a row and are repeated in each part of a folded table: 1 or more.

    Those after the first are text columns with short cells, and all together take at most 3/4 of the width.
    """
    count = 1
    while (
        count < len(needs) - 1
        and table.columns[count].justify == "left"
        and widest[count] <= _NAME
        and _width(range(count + 1), needs) <= 0.75 * width
    ):
        count += 1
    return count


def _need(column: Column, console: Console) -> int:
    """Return the least width of a column in characters.

    Numbers need their full width. Text may wrap: it needs its longest word, or up to 24 characters if more.
    """
    widest = _widest(column, console)
    if column.justify == "right" or column.no_wrap:
        return widest
    longest = max(console.measure(cell).minimum for cell in (column.header, *column.cells))
    return max(min(widest, _TEXT), longest)


def _widest(column: Column, console: Console) -> int:
    return max(console.measure(cell).maximum for cell in (column.header, *column.cells))


def _width(places: Iterable[int], needs: list[int]) -> int:
    chosen = [needs[place] for place in places]
    return sum(chosen) + 2 * len(chosen) + 2  # with padding and lines


def _part(table: Table, places: Iterable[int], needs: list[int]) -> Table:
    part = Table(
        title=table.title,
        caption=table.caption,
        title_justify=table.title_justify,
        title_style=table.title_style,
        box=table.box,
        pad_edge=table.pad_edge,
        collapse_padding=True,
    )
    chosen = list(places)
    for place in chosen:
        column = table.columns[place]
        number = column.justify == "right"
        part.add_column(
            column.header,
            justify=column.justify,
            no_wrap=number or column.no_wrap,
            min_width=needs[place],
            overflow="fold",
        )
    cells = [list(table.columns[place].cells) for place in chosen]
    for index, row in enumerate(table.rows):
        part.add_row(*(column[index] for column in cells), end_section=row.end_section, style=row.style)
    return part
