"""Between encoding and decoding, an operator computes by verbs alone: what its own code does to integers is watched.

Wiring is no computing: a constant place by which bits are split or joined, the sign of a synapse, casts, views, copies.
Whatever else there is stands in ALLOWED, with its reason.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from operators.samples import SAMPLES, samples
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import spikeplug
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators import RECORDS
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Arithmetic, Closed, arithmetic

ROOT = str(Path(spikeplug.__file__).parent)
PAPER = PRESETS["paper"].numerics
NUMERICS = {
    **{name: preset.numerics for name, preset in PRESETS.items()},
    "narrow, blocks of 2": dataclasses.replace(PRESETS["narrow"].numerics, scale_block=2),
    "cordic": Numerics(norm="cordic"),
    "piecewise, scaled": dataclasses.replace(PAPER, shift_scaling=True),
    "floored": Numerics(bits=6, working_bits=12, divide_last=False, shift_scaling=False),
}
WIRING = {
    *("neg", "__rshift__", "__lshift__", "bitwise_and", "_to_copy"),
    *(
        "select",
        "slice",
        "view",
        "transpose",
        "alias",
        "split",
        "expand",
        "unsqueeze",
        "squeeze",
        "cat",
        "clone",
        "copy_",
    ),
    *("empty_like", "zeros_like", "ones_like", "full_like", "lift_fresh", "detach"),
}
#: These are wiring only beside a constant.
CONSTANT = {"__rshift__", "__lshift__", "bitwise_and"}
EXPONENT = "a constant is added to an exponent: where a number's point is, not a number"
LEDGER = "saturations are counted, which changes nothing"
ENCODING = "part of encoding"
#: (file, function) -> ATen ops on integers, and why they are no neurons.
ALLOWED: dict[tuple[str, str], tuple[set[str], str]] = {
    ("curves/hardswish.py", "hardswish_integers"): ({"sub"}, EXPONENT),
    ("curves/mish.py", "mish_integers"): ({"sub"}, EXPONENT),
    ("curves/scaled.py", "scaled"): ({"add"}, EXPONENT),
    ("elements/exp.py", "exponential_integers"): ({"sub", "lt", "gt"}, f"{EXPONENT}; {LEDGER}"),
    ("elements/log.py", "logarithm_integers"): ({"sub"}, EXPONENT),
    ("exponentials.py", "falling"): ({"gt"}, LEDGER),
    ("gates/gate.py", "open_gate"): ({"lt", "gt"}, LEDGER),
    ("norms/vector_norm.py", "vector_norm_integers"): ({"add"}, EXPONENT),
    ("ratio.py", "Ratio.__call__"): ({"ge"}, LEDGER),
    ("ratio.py", "Ratio.scaled"): ({"sub"}, EXPONENT),
    ("ratio.py", "normalise"): ({"rsub"}, EXPONENT),
    ("softmax/log_softmax.py", "_far"): ({"eq", "__rshift__", "clamp", "sub", "ge", "maximum"}, ENCODING),
    ("softmax/log_softmax.py", "_rows"): ({"sub"}, EXPONENT),
    ("softmax/log_softmax.py", "log_softmax_integers"): ({"sub"}, EXPONENT),
    ("softmax/weights.py", "weights"): ({"gt"}, LEDGER),
    ("waves/wave.py", "wave.<locals>.elements"): ({"add"}, ENCODING),
}
Found = dict[tuple[str, str], set[str]]


class OwnArithmetic(TorchDispatchMode):
    """Collect the ops that code in operators/ dispatches on integers, by file and function."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Found = defaultdict(set)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(_is_integer(x) for x in tensors):
            file, function = _caller()
            name = func._schema.name.removeprefix("aten::")
            wiring = name in WIRING and (name not in CONSTANT or len(tensors) == 1)
            if file.startswith("operators/") and not wiring:
                self.found[file.removeprefix("operators/"), function].add(name)
        return func(*args, **(kwargs or {}))


def _is_integer(x: Tensor) -> bool:
    return not x.dtype.is_floating_point and not x.dtype.is_complex and x.dtype != torch.bool


def _caller() -> tuple[str, str]:
    """Return the file and function of the package that dispatches; empty names if none does."""
    frame = sys._getframe(2)
    while frame is not None and not frame.f_code.co_filename.startswith(ROOT):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return "", ""
    return Path(frame.f_code.co_filename).relative_to(ROOT).as_posix(), frame.f_code.co_qualname


def _watch(name: str, on: Arithmetic) -> Found:
    with OwnArithmetic() as watch, torch.no_grad():
        for given in samples(name, few=not isinstance(on, Closed)):
            RECORDS[name].spiking(*given, on=on)
    return watch.found


def _extra(found: Found) -> Iterator[str]:
    for (file, function), ops in found.items():
        more = ops - ALLOWED.get((file, function), (set(), ""))[0]
        if more:
            yield f"{file}: {function} computes {', '.join(sorted(more))} of integers by itself; use the verbs of `on`"


@pytest.fixture(scope="module")
def closed() -> Found:
    total: Found = defaultdict(set)
    for numerics in NUMERICS.values():
        for name in SAMPLES:
            for place, ops in _watch(name, Closed(numerics, name)).items():
                total[place] |= ops
    return total


def test_operators_compute_by_verbs_alone(closed: Found) -> None:
    assert not list(_extra(closed))


@pytest.mark.parametrize("predicted", [False, True])
def test_they_do_so_in_simulation_and_prediction(predicted: bool) -> None:
    for name in SAMPLES:
        assert not list(_extra(_watch(name, arithmetic(name, Numerics(), Events(predicted=predicted))))), name


def test_nothing_is_allowed_that_is_not_done(closed: Found) -> None:
    for place, (ops, reason) in ALLOWED.items():
        assert closed.get(place, set()) == ops, place
        assert reason


def test_the_watch_sees_arithmetic() -> None:
    """A function that pretends to stand in operators/ and adds two integers."""
    code = compile("def total(a, b):\n    return (a << 1) + b", f"{ROOT}/operators/pretended.py", "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    with OwnArithmetic() as watch:
        names["total"](torch.tensor([1]), torch.tensor([2]))
    assert list(_extra(watch.found)) == [
        "pretended.py: total computes add of integers by itself; use the verbs of `on`"
    ]
