"""Hold one record per way of running a converted model, and judge it: right, refused with a sentence, or wrong.

A way is right if four things hold:
- it gives what the eager model gives, which was changed the same way first and converted after that;
- it gives something else on the exact model, so that a model that runs exact unnoticed is seen;
- `revert` afterwards gives the bits of an exact model that was changed the same way;
- it warns of nothing.
A way is refused well if the error is a SpikeplugError, the model runs as before, and `revert` gives the exact bits.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parents[1] / "conversion"))
sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))

import torch
import torch.nn.functional as F  # noqa: N812
from tiny_models import tiny_model, tokens
from torch import Tensor, nn
from torch.utils import _pytree as tree

from spikeplug.conversion import convert, revert
from spikeplug.errors import SpikeplugError

#: Largest relative difference of two float64 gradients that sum the same products in another order.
ROUNDING = 1e-12


class Block(nn.Module):
    """Have every kind of plug: an activation, a norm, and functions that the module's own code calls.

    Weights of few bits, in float64: every sum of products is exact, so that no order of summation shows in a bit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.activation, self.norm = nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16)
        self.second = nn.Linear(16, 8)
        generator = torch.Generator().manual_seed(0)
        self.double()
        with torch.no_grad():
            for weight in (*self.first.parameters(), *self.second.parameters()):
                weight.copy_(torch.randint(-8, 9, weight.shape, generator=generator) / 16)

    def core(self, x: Tensor) -> Tensor:
        """Return attention of x, (..., tokens, 8), to itself."""
        return torch.softmax(x @ x.mT / 2, -1) @ x

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.second(self.norm(self.activation(self.first(x))))
        return torch.tanh(x + self.core(x))


class Attending(Block):
    """Call torch's fused attention."""

    def core(self, x: Tensor) -> Tensor:
        heads = x.unsqueeze(-3)
        return F.scaled_dot_product_attention(heads, heads, heads, is_causal=True).squeeze(-3)


def block() -> tuple[nn.Module, Tensor]:
    """Return a block and a batch of three samples, (3, 4, 8)."""
    return Block().eval(), torch.randint(-16, 17, (3, 4, 8), generator=torch.Generator().manual_seed(1)).double() / 16


def attending() -> tuple[nn.Module, Tensor]:
    """Return a block with torch's fused attention, and its input."""
    return Attending().eval(), block()[1]


def llama() -> tuple[nn.Module, Tensor]:
    """Return a transformer of two layers and its tokens."""
    return tiny_model("llama"), tokens(2, 6)


def quietly(function: Callable[[], Any]) -> Any:
    """Return the result without torch's warnings of its own deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor")
        return function()


def eager(model: nn.Module, x: Tensor) -> Tensor:
    """Return the output of a plain call, without a gradient."""
    with torch.no_grad():
        output = model(x)
    return getattr(output, "logits", output).clone()  # type: ignore[no-any-return]


def is_converted(model: nn.Module) -> bool:
    """Return whether `convert` was called on the model itself."""
    return hasattr(model, "spikeplug_conversion")


@dataclass(frozen=True)
class Way:
    """Describe one way of running, differentiating, copying or changing a converted model.

    name       what a user would call it
    run        (model, x) -> tensors: run the model this way
    build      () -> (model, x): an exact model and its input
    reference  (model, x) -> what `run` must give; None: the output of a plain call
    refused    whether a SpikeplugError is what is right
    within     largest difference allowed, of the largest expected value; 0: equal bits
    moved      whether a part was taken out or wrapped, so that `revert` must say that it misses it
    exact      whether torch itself can run the exact model in this way
    note       what the page adds
    """

    name: str
    run: Callable[[nn.Module, Tensor], Any]
    build: Callable[[], tuple[nn.Module, Tensor]] = block
    reference: Callable[[nn.Module, Tensor], Any] = eager
    refused: bool = False
    within: float = 0.0
    moved: bool = False
    exact: bool = True
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """Say what a way did. kind: `right`, `refused` or `wrong`. detail: what was measured."""

    kind: Literal["right", "refused", "wrong"]
    detail: str


def judge(way: Way) -> Verdict:
    """Run a converted model in a way, and return the verdict."""
    (model, x), (twin, _) = way.build(), way.build()
    exact = eager(model, x)
    convert(model)
    spiking = eager(model, x)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = tree.tree_leaves(way.run(model, x))
    except SpikeplugError as error:
        if not torch.equal(eager(model, x), spiking):
            return Verdict("wrong", "changed by the refusal")
        revert(model)
        return Verdict("refused", str(error)) if torch.equal(eager(model, x), exact) else Verdict("wrong", "revert")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unnoticed = tree.tree_leaves(way.run(twin, x)) if way.exact else []
    if _difference(found, unnoticed) == 0:
        return Verdict("wrong", "runs exact")
    changed = eager(twin, x)
    convert(twin)
    difference = _difference(found, tree.tree_leaves(way.reference(twin, x)))
    if not difference <= way.within:
        return Verdict("wrong", f"differs by {difference:.1e}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        missing = revert(model)
    if not torch.equal(eager(model, x), changed):
        return Verdict("wrong", "revert is not exact")
    if bool(missing) != way.moved or len(said) != way.moved:
        return Verdict("wrong", f"revert names {missing}")
    detail = "equal bits" if difference == 0 else f"within {way.within:.0e}"
    return Verdict("right", f"{detail}; `revert` names what it misses" if way.moved else detail)


def _difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference of tensors, of the largest expected value; 0 means equal bits."""
    if [x.shape for x in found] != [x.shape for x in expected]:
        return float("inf")
    if all(torch.equal(x, y) for x, y in zip(found, expected, strict=True)):
        return 0.0
    scale = max(float(y.detach().double().abs().max()) for y in expected)
    largest = max(float((x - y).detach().double().abs().max()) for x, y in zip(found, expected, strict=True))
    return largest / scale if largest == largest else float("inf")
