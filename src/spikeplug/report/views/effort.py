"""The least that is enough, as people see it."""

from __future__ import annotations

from typing import Any

from spikeplug.report.section import Drawing, Headline, Plot, Rows, Section, Table, axes, number, percent

_NAMES = {"bits": "n (bits)", "working_bits": "working bits", "segments": "segments of the table"}


def view(rows: Rows, header: dict[str, Any]) -> Section:
    targets = {values["target_percent"]: values for key, values in rows.items() if key.startswith("target/")}
    tries = [values for key, values in rows.items() if key.startswith("try/")]
    met = {target: values for target, values in sorted(targets.items()) if values["met"]}
    lead = "The smallest n, table and working width that still meet a perplexity target: found by search, not by hand."
    headlines = []
    if met:
        tightest, values = next(iter(met.items()))
        lead = (
            f"Within {tightest:g} % of the exact perplexity: n = {values['bits']}, {values['working_bits']} working "
            "bits, "
            f"{values['segments']} segments, for {_saving(values)} the neuron updates of this run's numerics."
        )
        note = f"{values['working_bits']} working bits, {values['segments']} segments"
        headlines.append(Headline(f"Enough for ±{tightest:g} %", f"n = {values['bits']}", note))
    parts: list[Plot | Table] = []
    if targets:
        parts.append(_answers(dict(sorted(targets.items()))))
    if tries:
        parts += [_tries(tries), _try_table(tries)]
    return Section("effort", "The least that is enough", lead, parts, headlines)


def _saving(values: Any) -> str:
    own = values["updates_per_token_of_the_run"]
    return f"{100 * values['updates_per_token'] / own:.0f} % of" if own else "an unknown share of"


def _answers(targets: dict[float, Any]) -> Table:
    columns = ["target %", *_NAMES.values(), "change %", "± %", "mean KL", "updates a token", "of this run's %"]
    body: list[list[Any]] = []
    for target, values in targets.items():
        if not values["met"]:
            body.append([target, "not met", *[None] * 7])
            continue
        own = values["updates_per_token_of_the_run"]
        share = 100 * values["updates_per_token"] / own if own else None
        fields = ("change_percent", "standard_error_percent", "mean_kl", "updates_per_token")
        body.append([target, *(values[name] for name in _NAMES), *(values[field] for field in fields), share])
    return Table("Smallest configs", "effort", columns, body, open=True)


def _tries(tries: list[Any]) -> Plot:
    drawings = []
    for name, words in _NAMES.items():
        sizes = [abs(values["change_percent"]) if values["change_percent"] is not None else None for values in tries]
        trace = {
            "type": "scatter",
            "mode": "markers",
            "x": [values[name] for values in tries],
            "y": [size or None for size in sizes],
            "text": [_words(values) for values in tries],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"size": 9, "opacity": 0.75},
        }
        log = "xy" if name == "segments" else "y"
        drawings.append(Drawing(words, [trace], axes(words, "|perplexity change| (%)", log=log, showlegend=False)))
    reading = (
        f"All {len(tries)} configs that the search measured. A target is met if the change of perplexity, up or down, "
        "and "
        "its standard error together stay within it; first n is made as small as possible, then the working bits, then "
        "the table. More tokens make the standard error smaller, and so may allow less."
    )
    return Plot("The search", drawings, reading)


def _words(values: Any) -> str:
    return (
        f"n = {values['bits']}, {values['working_bits']} working bits, {values['segments']} segments: "
        f"{percent(values['change_percent'])}, KL {number(values['mean_kl'])}"
    )


def _try_table(tries: list[Any]) -> Table:
    fields = (*_NAMES, "converted_perplexity", "change_percent", "standard_error_percent", "mean_kl")
    columns = [*_NAMES.values(), "perplexity", "change %", "± %", "mean KL"]
    return Table(
        "All configs tried", "effort-tries", columns, [[values[field] for field in fields] for values in tries]
    )
