"""Search for the least that is enough: the smallest bits (n), table and working width that meet a perplexity target.

A coordinate search starts from numerics that meet the target. It finds the fewest bits, then the fewest working_bits,
then the smallest table, each by bisection with the others as found so far. Every answer was measured as a whole. One
step less of segments misses the target, and so did one step less of the others when they were searched. Bisection
supposes that more is not worse. A target is met if the change of perplexity, up or down, plus its standard error stays
within it: a change that few tokens cannot tell from chance does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from spikeplug.measurement.section import Drawing, Headline, Plot, Rows, Section, Table, axes, number, percent
from spikeplug.numerics import Numerics
from spikeplug.report.capture import calls
from spikeplug.report.comparison import Change, Comparison
from spikeplug.report.cost import updates_per_token
from spikeplug.report.sections import Row
from spikeplug.report.sections.sweeps import with_parameter

#: Allowed change of perplexity, up or down, in per cent.
TARGETS = (1.0, 0.5, 0.1)
PARAMETERS = ("bits", "working_bits", "segments")
# Where a search starts if the numerics of the run miss the target.
_ROOM = {"bits": 16, "working_bits": 24, "segments": 256}


def steps(comparison: Comparison) -> int:
    """Return the largest possible number of rows: each bisection takes about four tries."""
    return len(TARGETS) * (2 + 4 * len(PARAMETERS))


def measure(comparison: Comparison, row: Row) -> None:
    """Search the smallest numerics for each perplexity target, and measure every try.

    try/BITS,WORKING_BITS,SEGMENTS   a row for every numerics that the search tries
    target/PERCENT                   a row with the answer for each allowed change of perplexity
    """
    tried: dict[Numerics, dict[str, Any]] = {}

    def figures_of(numerics: Numerics) -> dict[str, Any]:
        if numerics not in tried:
            key = f"try/{','.join(str(getattr(numerics, name)) for name in PARAMETERS)}"
            tried[numerics] = row(key, partial(_try, comparison, numerics))
        return tried[numerics]

    for target in TARGETS:
        found = search(comparison.numerics, partial(_is_enough, figures_of, target))
        row(f"target/{target:g}", partial(_answer, comparison, target, found))


def search(numerics: Numerics, enough: Callable[[Numerics], bool]) -> Numerics | None:
    """Return the smallest numerics for which `enough` is True; None if even much wider ones than `numerics` are not.

    Smallest: fewest bits first, then working_bits, then segments.
    """
    if not enough(numerics):
        roomy = numerics
        for name in ("working_bits", "bits", "segments"):
            wider = with_parameter(roomy, name, max(_ROOM[name], getattr(roomy, name)))
            roomy = wider or roomy
        if roomy == numerics or not enough(roomy):
            return None
        numerics = roomy
    for name in PARAMETERS:
        numerics = _least(numerics, name, enough)
    return numerics


def _least(numerics: Numerics, name: str, enough: Callable[[Numerics], bool]) -> Numerics:
    """Return numerics with the smallest value of the field `name` that is enough, found by bisection.

    `numerics` must be enough already.
    """
    now = getattr(numerics, name)
    # Fewer than 8 chords over the whole range of the piecewise form are not an exponential any more.
    fewest = 1 if numerics.exponential == "shift" else 8
    below: Sequence[int] = [2**k for k in range(now.bit_length()) if fewest <= 2**k < now]
    if name != "segments":
        below = range(2 if name == "bits" else numerics.bits + 1, now)
    options = [option for value in below if (option := with_parameter(numerics, name, value)) is not None]
    low, high = 0, len(options)  # the answer is options[high], or `numerics` where high is beyond
    while low < high:
        middle = (low + high) // 2
        if enough(options[middle]):
            high = middle
        else:
            low = middle + 1
    return options[high] if high < len(options) else numerics


def _is_enough(figures_of: Callable[[Numerics], dict[str, Any]], target: float, numerics: Numerics) -> bool:
    figures = figures_of(numerics)
    change, deviation = figures["change_percent"], figures["standard_error_percent"]
    return change is not None and deviation is not None and abs(change) + deviation <= target


def _try(comparison: Comparison, numerics: Numerics) -> dict[str, Any]:
    return _fields(numerics) | comparison.figures(Change(numerics))


def _fields(numerics: Numerics) -> dict[str, Any]:
    return {name: getattr(numerics, name) for name in PARAMETERS}


def _answer(comparison: Comparison, target: float, numerics: Numerics | None) -> dict[str, Any]:
    if numerics is None:
        return {"target_percent": target, "met": False}
    kinds = calls(comparison, comparison.settings.context // 2)
    own = updates_per_token(kinds, comparison.numerics, comparison.realisation)["updates_per_token"]
    found = updates_per_token(kinds, numerics, comparison.realisation)["updates_per_token"]
    return {
        "target_percent": target,
        "met": True,
        **_fields(numerics),
        **comparison.figures(Change(numerics)),
        "updates_per_token": found,
        "updates_per_token_of_the_run": own,
        "numerics": numerics.to_dict(),
    }


_NAMES = {"bits": "n (bits)", "working_bits": "working bits", "segments": "segments of the table"}


def view(rows: Rows, header: dict[str, Any]) -> Section:
    """Draw the smallest numerics for each perplexity target, and everything that the search tried."""
    targets = {values["target_percent"]: values for key, values in rows.items() if key.startswith("target/")}
    tries = [values for key, values in rows.items() if key.startswith("try/")]
    met = {target: values for target, values in sorted(targets.items()) if values["met"]}
    lead = "The smallest n, table and working width that still meet a perplexity target: found by search."
    headlines = []
    if met:
        tightest, values = next(iter(met.items()))
        lead = (
            f"Within {tightest:g} % of the exact perplexity: n = {values['bits']}, {values['working_bits']} working "
            f"bits, {values['segments']} segments, for {_saving(values)} the neuron updates of this run's numerics."
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
    columns = ["target %", *_NAMES.values(), "change %", "± %", "mean KL", "updates per token", "of this run's %"]
    body: list[list[Any]] = []
    for target, values in targets.items():
        if not values["met"]:
            body.append([target, "not met", *[None] * 7])
            continue
        own = values["updates_per_token_of_the_run"]
        share = 100 * values["updates_per_token"] / own if own else None
        fields = ("change_percent", "standard_error_percent", "mean_kl", "updates_per_token")
        body.append([target, *(values[name] for name in _NAMES), *(values[field] for field in fields), share])
    return Table("Smallest numerics", "effort", columns, body, open=True)


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
        f"All {len(tries)} numerics that the search measured. A target is met if the change of perplexity, up or down, "
        "plus its standard error stays within it. First n is made as small as possible, then the working bits, then "
        "the table. More tokens make the standard error smaller, so that smaller numerics may meet the target."
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
        "All numerics tried", "effort-tries", columns, [[values[field] for field in fields] for values in tries]
    )
