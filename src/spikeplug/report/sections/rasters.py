"""Record what the neurons do: spikes and membranes of each operator for one token, neuron by neuron."""

from __future__ import annotations

from functools import partial
from typing import Any

from spikeplug.library import OPERATORS
from spikeplug.measurement.section import Drawing, Plot, Rows, Section, Table, axes
from spikeplug.neurons import Events
from spikeplug.report.capture import calls
from spikeplug.report.comparison import Comparison
from spikeplug.report.recorder import Recorder
from spikeplug.report.sections import Row

# Elements of the row, or keys of the attention row, that are simulated; rasters that are kept.
_WIDTH, _POPULATIONS = 12, 24
# An ordered group of more bits has too many neurons to draw.
_MOST_BITS = 8


def steps(comparison: Comparison) -> int:
    """Return the number of rows, 1: all operators share it, as they are known only once the model has run."""
    return 1


def measure(comparison: Comparison, row: Row) -> None:
    """Measure one row, "operators": spikes and membranes of every operator for the chosen token."""
    row("operators", partial(_all, comparison))


def _all(comparison: Comparison) -> dict[str, Any]:
    """Return the rasters of the first call of each operator, cut to a few elements of the chosen token's row."""
    found: dict[str, Any] = {}
    if comparison.realisation.division == "ordered" and comparison.numerics.bits > _MOST_BITS:
        return {"token": comparison.settings.token, "operators": {}}
    for call in calls(comparison, comparison.settings.token % comparison.settings.context):
        if call.operator in found:
            continue
        recorder = Recorder()
        events = Events(comparison.realisation, recorder)
        OPERATORS[call.operator](*call.cut(_WIDTH), numerics=comparison.numerics, events=events)
        populations = [raster.to_dict() for raster in recorder.rasters]
        found[call.operator] = {
            "elements": min(_WIDTH, call.available),
            "populations": populations[:_POPULATIONS],
            "left_out": len(populations[_POPULATIONS:]),
            "spikes": events.spikes,
            "updates": events.membrane_updates,
            "steps": events.steps,
        }
    return {"token": comparison.settings.token, "operators": found}


#: The kind of population whose neurons have a firing threshold.
_SPIKING = "threshold"
_WORDS = {
    "threshold": "neurons with a threshold",
    "accumulator": "neurons that only accumulate",
    "table": "a table",
    "input": "input spikes",
}


def view(rows: Rows, header: dict[str, Any]) -> Section:
    """Draw one picture per population of neurons: spikes above, membranes below."""
    values = rows.get("operators", {"operators": {}, "token": -1})
    parts: list[Plot | Table] = []
    for name, found in values["operators"].items():
        drawings = [_drawing(number, population) for number, population in enumerate(found["populations"], 1)]
        if drawings:
            first = _first(found["populations"])
            parts.append(Plot(f"{name}, neuron by neuron", drawings, _reading(found), first=first))
    body = [[name, f["elements"], f["spikes"], f["updates"], f["steps"]] for name, f in values["operators"].items()]
    if body:
        columns = ["operator", "elements", "spikes", "membrane updates", "time steps"]
        parts.append(Table("What was simulated", "rasters", columns, body))
    token = values["token"]
    place = f"token {token}" if token >= 0 else "the last token" if token == -1 else f"token {-token} from the end"
    lead = f"Spikes and membranes of the populations of each operator, on {place} of the first window."
    if not body:
        lead = "Ordered groups of more than 8 bits have too many neurons to draw: choose numerics with fewer bits."
    return Section("rasters", "What the neurons do", lead, parts)


def _reading(found: Any) -> str:
    left = f" {found['left_out']} later populations are not drawn." if found["left_out"] else ""
    return (
        f"The operator's populations in the order in which they run, on {found['elements']} elements of a real row: "
        "choose one above. Marks are spikes; the lines are membranes of a few of these neurons, in integer units, "
        f"before a reset. In all {found['spikes']:,} spikes and {found['updates']:,} membrane updates in "
        f"{found['steps']:,} time steps.{left}"
    )


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'s' * (count != 1)}"


def _first(populations: list[Any]) -> int:
    """Return the index of the first population that spikes in more than one time step; 0 if there is none."""
    moving = [i for i, population in enumerate(populations) if population["spikes"] and population["steps"] > 1]
    return moving[0] if moving else 0


def _drawing(number: int, population: Any) -> Drawing:
    steps, spiking = population["steps"], population["kind"] == _SPIKING
    size = f"{_many(population['groups'] * population['size'], 'neuron')}, {_many(steps, 'step')}"
    words = _WORDS.get(population["kind"], population["kind"])
    label = f"{number}. {population['name']}: {words}, {population['width']} bits ({size})"
    return Drawing(label, *(_once(population) if steps == 1 and spiking else _over_time(population)))


def _once(population: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return traces and layout of the picture of a population that runs one step: which neurons fired."""
    size = population["size"]
    fired = [neuron for _, neuron in population["spikes"]]
    trace = _dots([n % size for n in fired], [n // size for n in fired], "circle")
    trace["hovertemplate"] = "neuron %{x} of element %{y}<extra>spike</extra>"
    layout = axes(
        "neuron, in the order of the thresholds",
        "element",
        whole={"y": (0, population["groups"] - 1)},
        showlegend=False,
    )
    layout["xaxis"] |= {"range": [-0.02 * size - 0.5, 1.02 * size - 0.5]}
    return [trace], layout


def _over_time(population: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return traces and layout of the picture of a population over time: spikes above, membranes below."""
    layout = axes("time step", "membrane", whole={"x": (0, population["steps"] - 1)})
    traces = []
    if population["kind"] == _SPIKING:
        raster = _dots([p[0] for p in population["spikes"]], [p[1] for p in population["spikes"]], "line-ns-open")
        raster["hovertemplate"] = "step %{x}, neuron %{y}<extra>spike</extra>"
        traces.append(raster | {"yaxis": "y2"})
        neurons = population["groups"] * population["size"]
        upper = {"title": {"text": "neuron"}, "domain": [0.56, 1], "range": [-0.5, neurons - 0.5]}
        upper["dtick"] = max(1, -(-neurons // 6))
        layout |= {"yaxis": layout["yaxis"] | {"domain": [0, 0.48]}, "yaxis2": upper}
    for neuron, trace in zip(population["traced"], population["membranes"], strict=True):
        steps = list(range(len(trace)))
        shape = {"shape": "hvh", "width": 1.5}
        traces.append(
            {"type": "scatter", "mode": "lines", "name": f"neuron {neuron}", "x": steps, "y": trace, "line": shape}
        )
    return traces, layout


def _dots(x: list[int], y: list[int], symbol: str) -> dict[str, Any]:
    marker = {"symbol": symbol, "size": 7, "line": {"width": 2 if symbol.startswith("line") else 0}}
    return {"type": "scatter", "mode": "markers", "name": "spikes", "x": x, "y": y, "marker": marker}
