"""Run a NIR graph by the equations of its nodes, one Euler step of length 1 per time step, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np


def executed(graph: Any, raster: np.ndarray, *, subtract: bool = False) -> np.ndarray:
    """Return what the output node gives, (steps, batch, neurons), for input spikes (steps, batch, channels).

    A node takes the sum of what its sources give: in this step if they come before it, else in the step before.
    subtract: a CubaLIF subtracts its threshold after a spike, as the metadata of a graph may say.
    """
    state: dict[str, Any] = {}
    given: dict[str, Any] = {}
    outputs = []
    order = _order(graph)
    for step in raster.astype(float):
        before, given = given, {}
        for name in order:
            node = graph.nodes[name]
            x = step if name == "input" else sum(_value(given, before, a) for a, b in graph.edges if b == name)
            given[name] = _stepped(node, x, state, name, subtract)
        outputs.append(given["output"])
    return np.stack(outputs)


def _value(given: dict[str, Any], before: dict[str, Any], name: str) -> Any:
    return given[name] if name in given else before.get(name, 0.0)


def _order(graph: Any) -> list[str]:
    """Return the nodes so that each comes after its sources, where no loop forbids it: a state closes a loop."""
    order, rest = [], sorted(graph.nodes)
    loops = {(a, b) for a, b in graph.edges if a.endswith(("_leak", "_reset"))}
    while rest:
        ready = [n for n in rest if all(a in order for a, b in graph.edges if b == n and (a, b) not in loops)]
        order += ready
        rest = [n for n in rest if n not in ready]
    return order


def _stepped(node: Any, x: Any, state: dict[str, Any], name: str, subtract: bool) -> Any:
    kind = type(node).__name__
    if kind in ("Input", "Output"):
        return x
    if kind == "Affine":
        return x @ node.weight.T + node.bias
    if kind == "Threshold":
        return (x > node.threshold).astype(float)
    v = state.get(name, 0.0)
    if kind in ("I", "IF"):
        v = v + node.r * x
    elif kind in ("LI", "LIF"):
        v = v + (node.v_leak - v + node.r * x) / node.tau
    else:
        assert kind == "CubaLIF"
        assert np.all(node.tau_syn == 1), "the current of a step is that step's alone"
        v = v + (node.v_leak - v + node.r * (node.w_in * x)) / node.tau_mem
    if kind in ("I", "LI"):
        state[name] = v
        return v
    spikes = v > node.v_threshold
    state[name] = np.where(spikes, v - node.v_threshold if subtract else node.v_reset, v)
    return spikes.astype(float)
