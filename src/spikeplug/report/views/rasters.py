"""What the neurons do, drawn: spikes above, membranes below."""

from __future__ import annotations

from typing import Any

from spikeplug.report.section import Drawing, Plot, Rows, Section, Table, axes

_WORDS = {
    "ordered": "ordered neurons find the segment of a table",
    "gate": "products by gating: a spike train opens the other operand's synapse",
    "dot": "the value product: spikes of the weights, values in the synapses",
    "restoring_neuron": "division: leak 2, threshold the denominator",
    "ordered_groups": "division: one neuron for each quotient level",
    "root": "the restoring root",
    "decay": "2^-k: a leak of one half, k times",
    "square_sum": "all squares drive one neuron",
    "merge": "CORDIC: a sign neuron steers the shifted adds",
}


def view(rows: Rows, header: dict[str, Any]) -> Section:
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
        lead = "Ordered groups of more than 8 bits have too many neurons to draw: choose a numerics with fewer bits."
    return Section("rasters", "What the neurons do", lead, parts)


def _reading(found: Any) -> str:
    left = f" {found['left_out']} later populations are not drawn." if found["left_out"] else ""
    return (
        f"The operator's populations in the order in which they run, on {found['elements']} elements of a real row: "
        "choose "
        "one above. Marks are spikes; the lines are membranes of a few of these neurons, in integer units, before a "
        f"reset. In all {found['spikes']:,} spikes and {found['updates']:,} membrane updates in {found['steps']:,} "
        "time "
        f"steps.{left}"
    )


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'s' * (count != 1)}"


def _first(populations: list[Any]) -> int:
    """The first that spikes over time: the most to see."""
    moving = [i for i, population in enumerate(populations) if population["spikes"] and population["steps"] > 1]
    return moving[0] if moving else 0


def _drawing(number: int, population: Any) -> Drawing:
    name, steps = population["primitive"], population["steps"]
    neurons = population["groups"] * population["size"]
    words = _WORDS.get(name, name.replace("_", " "))
    label = f"{number}. {words} ({_many(neurons, 'neuron')}, {_many(steps, 'step')})"
    return Drawing(label, *(_once(population) if steps == 1 and population["threshold"] else _over_time(population)))


def _once(population: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A population that fires once: who fired."""
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
    """Spikes above, membranes below."""
    layout = axes("time step", "membrane", whole={"x": (0, population["steps"] - 1)})
    traces = []
    if population["threshold"]:
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
