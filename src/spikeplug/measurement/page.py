"""Render sections as one HTML file: everything is inside it, nothing is loaded."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from spikeplug.errors import SpikeplugError
from spikeplug.measurement.section import Headline, Plot, Section, Table, number

#: Characters from which on a cell of a table wraps.
_WORDS = 60
# The browser enforces that nothing is requested from anywhere.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def render_sections(
    sections: Sequence[Section], *, title: str, heading: str, subtitle: str, command: str, facts: Mapping[str, Any]
) -> str:
    """Return the text of an HTML page that shows these sections.

    title     the title of the browser window; heading and subtitle stand at the top of the page
    command   the command that made the page, for the footer
    facts     name -> value, shown at the bottom: settings, versions, machine

    Errors: SpikeplugError if plotly is not installed.
    """
    drawings: list[list[dict[str, Any]]] = []
    body = "\n".join(_section(section, drawings) for section in sections)
    data = json.dumps(drawings, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    return _asset("page.html").format(
        policy=_POLICY,
        title=html.escape(title),
        heading=html.escape(heading),
        command=html.escape(command),
        style=_asset("page.css"),
        subtitle=html.escape(subtitle),
        links="".join(f'<a href="#{section.name}">{html.escape(section.title)}</a>' for section in sections),
        headlines="".join(_headline(headline) for section in sections for headline in section.headlines),
        sections=body,
        facts=_fact_table(facts),
        data=data,
        plotly=plotly().replace("</script", "<\\/script"),
        script=_asset("page.js"),
    )


def plotly() -> str:
    """Return the JavaScript source of plotly.js. Errors: SpikeplugError if the package plotly is not installed."""
    try:
        return resources.files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    except (ImportError, OSError) as error:
        raise SpikeplugError("the page needs the package plotly: pip install 'spikeplug[report]'") from error


def _asset(name: str) -> str:
    return resources.files("spikeplug.measurement").joinpath(f"assets/{name}").read_text(encoding="utf-8")


def _headline(headline: Headline) -> str:
    label, value, note = (html.escape(text) for text in (headline.label, headline.value, headline.note))
    spans = f'<span class="label">{label}</span><span class="value">{value}</span><span>{note}</span>'
    return f'<div class="card">{spans}</div>'


def _section(section: Section, drawings: list[list[dict[str, Any]]]) -> str:
    parts = "\n".join(_plot(part, drawings) if isinstance(part, Plot) else _table(part) for part in section.parts)
    return (
        f'<section id="{section.name}"><h2>{html.escape(section.title)}</h2>'
        f'<p class="lead">{html.escape(section.lead)}</p><div class="parts">{parts}</div></section>'
    )


def _plot(plot: Plot, drawings: list[list[dict[str, Any]]]) -> str:
    number_ = len(drawings)
    drawings.append([{"traces": drawing.traces, "layout": drawing.layout} for drawing in plot.drawings])
    chooser = ""
    if len(plot.drawings) > 1:
        options = "".join(
            f'<option value="{i}"{" selected" * (i == plot.first)}>{html.escape(drawing.label)}</option>'
            for i, drawing in enumerate(plot.drawings)
        )
        label = html.escape(f"Shown in: {plot.title}")
        chooser = f'<select data-plot="{number_}" aria-label="{label}">{options}</select>'
    style = "" if plot.height is None else f' style="height: {plot.height}px"'
    return (
        f'<figure class="{"small" if plot.small else "wide"}">'
        f'<div class="head"><h3>{html.escape(plot.title)}</h3>{chooser}</div>'
        f'<div class="plot" id="plot-{number_}"{style}></div>'
        f"<figcaption>{html.escape(plot.reading)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    columns = "".join(
        f'<th scope="col" aria-sort="none"><button>{html.escape(column)}</button></th>' for column in table.columns
    )
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in table.rows)
    return (
        f'<details class="table" data-table="{table.name}"{" open" * table.open}><summary>{html.escape(table.title)} '
        f"({len(table.rows)} rows)</summary>"
        f'<div class="scroll"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div></details>'
    )


def _cell(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        shown = f"{value:,}" if isinstance(value, int) else number(value, 4)
        return f'<td class="number" data-value="{value!r}">{shown}</td>'
    text = "–" if value is None else str(value)
    words = ' class="words"' if len(text) > _WORDS else ""
    return f"<td{words}>{html.escape(text)}</td>"


def _fact_table(facts: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>" for k, v in facts.items())
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>'
