"""Search for the least that is enough: the smallest numbers that meet a perplexity target.

The numbers are bits (n), working width and table; of a whole model, levels of inputs, levels of keys and values, and
bits. A coordinate search starts from a form that meets the target. It finds the least of the first number, then of the
second, then of the third, each by bisection with the others as found so far. Every answer was measured as a whole. One
step less of the last number misses the target, and so did one step less of the others when they were searched.
Bisection supposes that more is not worse. A target is met if the change of perplexity, up or down, plus its standard
error stays within it: a change that few tokens cannot tell from chance does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from spikeplug.measurement.section import Drawing, Headline, Plot, Rows, Section, Table, Values, axes, number, percent
from spikeplug.report.arms import Change
from spikeplug.report.capture import calls
from spikeplug.report.comparison import Comparison
from spikeplug.report.cost import updates_per_token
from spikeplug.report.sections import Row
from spikeplug.report.sections.sweeps import LEVELS, parameter_of, start, with_parameter

#: Allowed change of perplexity, up or down, in per cent.
TARGETS = (1.0, 0.5, 0.1)
#: What is searched, in this order, by recipe.
PARAMETERS = {"operators": ("bits", "working_bits", "segments"), "whole": (*LEVELS, "bits")}
# Where a search starts if the numerics of the run miss the target. Levels have no more room: the weights were rounded
# for those of the run.
_ROOM = {"bits": 16, "working_bits": 24, "segments": 256}


def steps(comparison: Comparison) -> int:
    """Return the largest possible number of rows: each bisection takes about four tries."""
    return len(TARGETS) * (2 + 4 * len(_searched(start(comparison))))


def measure(comparison: Comparison, row: Row) -> None:
    """Search the smallest form for each perplexity target, and measure every try.

    try/VALUE,VALUE,VALUE   a row for every form that the search tries, with its values of PARAMETERS
    target/PERCENT          a row with the answer for each allowed change of perplexity
    """
    tried: dict[Change, dict[str, Any]] = {}

    def figures_of(change: Change) -> dict[str, Any]:
        if change not in tried:
            key = f"try/{','.join(str(value) for value in _values(change).values())}"
            tried[change] = row(key, lambda: {"parameters": _values(change), **comparison.figures(change)})
        return tried[change]

    for target in TARGETS:
        found = search(start(comparison), partial(_is_enough, figures_of, target))
        row(f"target/{target:g}", partial(_answer, comparison, target, found))


def search(change: Change, enough: Callable[[Change], bool]) -> Change | None:
    """Return the smallest form for which `enough` is True; None if even a much wider one than `change` is not.

    Smallest: in the order of PARAMETERS.
    """
    if not enough(change):
        roomy = change
        for name in ("working_bits", "bits", "segments"):
            wider = with_parameter(roomy, name, max(_ROOM[name], parameter_of(roomy, name)))
            roomy = wider or roomy
        if roomy == change or not enough(roomy):
            return None
        change = roomy
    for name in _searched(change):
        change = _least(change, name, enough)
    return change


def _searched(change: Change) -> tuple[str, ...]:
    return PARAMETERS["operators" if change.levels is None else "whole"]


def _values(change: Change) -> dict[str, Any]:
    return {name: parameter_of(change, name) for name in _searched(change)}


def _least(change: Change, name: str, enough: Callable[[Change], bool]) -> Change:
    """Return the form with the smallest value of the parameter `name` that is enough, found by bisection.

    `change` must be enough already.
    """
    options = [
        option
        for value in _below(change, name, parameter_of(change, name))
        if (option := with_parameter(change, name, value)) is not None
    ]
    low, high = 0, len(options)  # the answer is options[high], or `change` where high is beyond
    while low < high:
        middle = (low + high) // 2
        if enough(options[middle]):
            high = middle
        else:
            low = middle + 1
    return options[high] if high < len(options) else change


def _below(change: Change, name: str, now: int) -> Sequence[int]:
    """Return the values of a parameter, rising, that may do in place of `now`."""
    if name in LEVELS:
        return [2**k - 1 for k in range(1, now.bit_length() + 1) if 2**k - 1 < now]
    if name == "segments":
        # Fewer than 8 chords over the whole range of the piecewise form are not an exponential any more.
        fewest = 1 if change.numerics.exponential == "shift" else 8
        return [2**k for k in range(now.bit_length()) if fewest <= 2**k < now]
    return range(2 if name == "bits" else change.numerics.bits + 1, now)


def _is_enough(figures_of: Callable[[Change], dict[str, Any]], target: float, change: Change) -> bool:
    figures = figures_of(change)
    rise, deviation = figures["change_percent"], figures["standard_error_percent"]
    return rise is not None and deviation is not None and abs(rise) + deviation <= target


def _answer(comparison: Comparison, target: float, found: Change | None) -> dict[str, Any]:
    if found is None:
        return {"target_percent": target, "met": False}
    own, updates = (
        updates_per_token(
            calls(comparison, comparison.settings.context // 2, replace(start(comparison), levels=change.levels)),
            change.numerics,
            comparison.realisation,
        )["updates_per_token"]
        for change in (start(comparison), found)
    )
    return {
        "target_percent": target,
        "met": True,
        "parameters": _values(found),
        **comparison.figures(found),
        "updates_per_token": updates,
        "updates_per_token_of_the_run": own,
        "numerics": found.numerics.to_dict(),
        "levels": None if found.levels is None else asdict(found.levels),
    }


_NAMES = {
    "inputs": "levels of inputs",
    "cache": "levels of keys and values",
    "bits": "n (bits)",
    "working_bits": "working bits",
    "segments": "segments of the table",
}


def view(rows: Rows, header: dict[str, Any]) -> Section:
    """Draw the smallest numerics for each perplexity target, and everything that the search tried."""
    targets = {values["target_percent"]: values for key, values in rows.items() if key.startswith("target/")}
    tries = [values for key, values in rows.items() if key.startswith("try/")]
    met = {target: values for target, values in sorted(targets.items()) if values["met"]}
    names = PARAMETERS[header["arguments"]["recipe"]["name"]]
    searched = ", ".join(_NAMES[name] for name in names)
    lead = f"The least that still meets a perplexity target, found by search: {searched}."
    headlines = []
    if met:
        tightest, values = next(iter(met.items()))
        first, *others = _told(values["parameters"])
        lead = (
            f"Within {tightest:g} % of the exact perplexity: {', '.join((first, *others))}, for {_saving(values)} the "
            "neuron updates of this run's numerics."
        )
        headlines.append(Headline(f"Enough for ±{tightest:g} %", first, ", ".join(others)))
    parts: list[Plot | Table] = []
    if targets:
        parts.append(_answers(dict(sorted(targets.items())), names))
    if tries:
        parts += [_tries(tries, names), _try_table(tries, names)]
    return Section("effort", "The least that is enough", lead, parts, headlines)


def _saving(values: Any) -> str:
    own = values["updates_per_token_of_the_run"]
    return f"{100 * values['updates_per_token'] / own:.0f} % of" if own else "an unknown share of"


def _told(parameters: Values) -> list[str]:
    """Return the parameters of a try in words, one text each."""
    return [f"n = {value}" if name == "bits" else f"{value} {_NAMES[name]}" for name, value in parameters.items()]


def _answers(targets: dict[float, Any], names: tuple[str, ...]) -> Table:
    columns = [
        "target %",
        *(_NAMES[name] for name in names),
        "change %",
        "± %",
        "mean KL",
        "updates per token",
        "of this run's %",
    ]
    body: list[list[Any]] = []
    for target, values in targets.items():
        if not values["met"]:
            body.append([target, "not met", *[None] * 7])
            continue
        own = values["updates_per_token_of_the_run"]
        share = 100 * values["updates_per_token"] / own if own else None
        fields = ("change_percent", "standard_error_percent", "mean_kl", "updates_per_token")
        body.append(
            [target, *(values["parameters"][name] for name in names), *(values[field] for field in fields), share]
        )
    return Table("Smallest numerics", "effort", columns, body, open=True)


def _tries(tries: list[Any], names: tuple[str, ...]) -> Plot:
    drawings = []
    for name in names:
        words = _NAMES[name]
        sizes = [abs(values["change_percent"]) if values["change_percent"] is not None else None for values in tries]
        trace = {
            "type": "scatter",
            "mode": "markers",
            "x": [values["parameters"][name] for values in tries],
            "y": [size or None for size in sizes],
            "text": [
                f"{', '.join(_told(values['parameters']))}: {percent(values['change_percent'])}, KL "
                f"{number(values['mean_kl'])}"
                for values in tries
            ],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"size": 9, "opacity": 0.75},
        }
        log = "xy" if name in ("segments", *LEVELS) else "y"
        drawings.append(Drawing(words, [trace], axes(words, "|perplexity change| (%)", log=log, showlegend=False)))
    first, second, third = (_NAMES[name] for name in names)
    reading = (
        f"All {len(tries)} tries of the search. A target is met if the change of perplexity, up or down, plus its "
        f"standard error stays within it. First made as small as possible: {first}; then: {second}; then: {third}. "
        "More tokens make the standard error smaller, so that less may meet the target."
    )
    return Plot("The search", drawings, reading)


def _try_table(tries: list[Any], names: tuple[str, ...]) -> Table:
    fields = ("converted_perplexity", "change_percent", "standard_error_percent", "mean_kl")
    columns = [*(_NAMES[name] for name in names), "perplexity", "change %", "± %", "mean KL"]
    body = [[*(values["parameters"][name] for name in names), *(values[f] for f in fields)] for values in tries]
    return Table("All tries", "effort-tries", columns, body)
