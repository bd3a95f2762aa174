"""List the cases: each operator at the shapes that two models give it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spikeplug.errors import SpikeplugError

if TYPE_CHECKING:
    from torch import Tensor

#: Shapes are (rows, width); of attention (query heads, key heads, queries, keys, channels).
_ATTENTIONS = ((512, 512), (2048, 2048), (1, 512), (1, 2048))
_SHAPES: dict[str, dict[str, tuple[tuple[int, ...], ...]]] = {
    "softmax": {"SmolLM2": ((9 * 512, 2048),), "LLaMA-3-8B": ((32 * 128, 2048),)},
    "silu": {"SmolLM2": ((2048, 1536),), "LLaMA-3-8B": ((512, 14336),)},
    "gelu": {"SmolLM2": ((2048, 1536),), "LLaMA-3-8B": ((512, 14336),)},
    "rms_norm": {"SmolLM2": ((2048, 576),), "LLaMA-3-8B": ((512, 4096),)},
    "layer_norm": {"SmolLM2": ((2048, 576),), "LLaMA-3-8B": ((512, 4096),)},
    "attention": {
        "SmolLM2": tuple((9, 3, queries, keys, 64) for queries, keys in _ATTENTIONS),
        "LLaMA-3-8B": tuple((32, 8, queries, keys, 128) for queries, keys in _ATTENTIONS),
    },
}
OPERATORS = tuple(_SHAPES)
#: The ways to compute an operator; see arms.py.
ARMS = ("kernel", "exact", "copy", "published", "closed", "simulated")
#: In every run: the kernel, and what it is compared with.
ALWAYS = ("kernel", "exact")
#: Arms that run in every round; the others are slow.
BASES = (*ALWAYS, "copy")
#: Operators without a published form.
_UNPUBLISHED = ("gelu", "layer_norm")
#: The parts of a run, in order. The first three are about operators, the others about a model.
SECTIONS = ("operators", "simulated", "growth", "layer", "model")
OF_MODELS = ("layer", "model")

#: A few rows for the simulation, which is thousands of times as slow. All arms are measured on them.
_FEW: dict[str, tuple[int, ...]] = {
    "softmax": (4, 512),
    "silu": (4, 1536),
    "gelu": (4, 1536),
    "rms_norm": (4, 576),
    "layer_norm": (4, 576),
    "attention": (9, 3, 2, 128, 64),
}

#: Shapes of a --quick run.
_QUICK: dict[str, tuple[tuple[int, ...], ...]] = {
    "softmax": ((64, 512),),
    "silu": ((64, 1536),),
    "gelu": ((64, 1536),),
    "rms_norm": ((64, 576),),
    "layer_norm": ((64, 576),),
    "attention": ((9, 3, 64, 64, 64), (9, 3, 1, 64, 64)),
}

#: By axis: the shape with -1 in place of the size, and the sizes. Attention's length is queries and keys.
_GROWTH: dict[str, dict[str, tuple[tuple[int, ...], tuple[int, ...]]]] = {
    "softmax": {
        "length": ((512, -1), (128, 512, 2048, 8192)),
        "width": ((-1, 512), (128, 512, 2048, 8192)),
    },
    "rms_norm": {
        "length": ((-1, 576), (128, 512, 2048, 8192)),
        "width": ((512, -1), (256, 1024, 4096, 16384)),
    },
    "attention": {
        "length": ((9, 3, -1, -1, 64), (128, 512, 2048, 4096)),
        "width": ((9, 3, 512, 512, -1), (32, 64, 128, 256)),
    },
}
GROWING = tuple(_GROWTH)
#: The axes in words.
AXES = {
    ("softmax", "length"): "scores of a row",
    ("softmax", "width"): "rows (heads × queries)",
    ("rms_norm", "length"): "tokens",
    ("rms_norm", "width"): "channels",
    ("attention", "length"): "tokens, all queries",
    ("attention", "width"): "channels of a head",
}


@dataclass(frozen=True)
class Case:
    """Describe one operator at one shape.

    section     "operators", "simulated" (few rows, with the simulation) or "growth" (time over size)
    operator    name of the operator
    shape       (rows, width); of causal attention (query heads, key heads, queries, keys, channels)
    model       name of the model that gives the operator this shape
    axis, size  for growth: what grows, "length" or "width", and its size in this case
    """

    section: str
    operator: str
    shape: tuple[int, ...]
    model: str = ""
    axis: str = ""
    size: int | None = None

    @property
    def shown(self) -> str:
        """Return the shape as a short text, such as "512×4096" or "9/3 heads of 64, 1 query, 512 keys"."""
        if self.operator != "attention":
            return "×".join(map(str, self.shape))
        heads, groups, queries, keys, channels = self.shape
        asked = "1 query" if queries == 1 else f"{queries} queries"
        return f"{heads}/{groups} heads of {channels}, {asked}, {keys} keys"

    @property
    def elements(self) -> int:
        """Return how many numbers go through the nonlinearity; for attention, the number of scores."""
        if self.operator != "attention":
            return self.shape[0] * self.shape[1]
        heads, _, queries, keys, _ = self.shape
        return heads * queries * keys

    @property
    def arms(self) -> tuple[str, ...]:
        """Return the names of the arms that exist for this case, in the order of ARMS.

        "simulated" only in the section of that name; "published" only for operators with a published recipe.
        """
        there = {"simulated": self.section == "simulated", "published": self.operator not in _UNPUBLISHED}
        return tuple(arm for arm in ARMS if there.get(arm, True))

    def inputs(self) -> tuple[Tensor, ...]:
        """Return the input tensors, float32, the same each time: x (norms: weight, bias too), or query, key, value.

        Numbers are N(0, 1); scores of softmax N(0, 3²), queries N(0, 2²).
        """
        import torch

        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        if self.operator == "attention":
            heads, groups, queries, keys, channels = self.shape
            return (
                normal(1, heads, queries, channels) * 2,
                normal(1, groups, keys, channels),
                normal(1, groups, keys, channels),
            )
        x = normal(*self.shape) * (3 if self.operator == "softmax" else 1)
        weights = {"rms_norm": 1, "layer_norm": 2}.get(self.operator, 0)
        return (x, *(normal(self.shape[-1]) for _ in range(weights)))


def chosen(names: str | None, of: tuple[str, ...] = OPERATORS, what: str = "operator") -> tuple[str, ...]:
    """Return the names in `names`, a text with commas between them; None and "all" give all of them.

    of     the known names
    what   what a name stands for, in one word, for messages

    Errors: SpikeplugError for unknown or repeated names.
    """
    if names is None or names == "all":
        return of
    found = tuple(name.strip() for name in names.split(","))
    for name in found:
        if name not in of:
            raise SpikeplugError(f"no {what} {name!r} to measure; choose out of {', '.join(of)}.")
    if len(set(found)) < len(found):
        raise SpikeplugError(f"{what}s is {names!r}; name each {what} once.")
    return found


def wanted(there: Iterable[str], names: Sequence[str]) -> list[str]:
    """Return the arms of `there` that must run: those in `names`, and always kernel, exact and closed.

    The closed form is needed to check the outputs, whether it is timed or not.
    """
    return [name for name in there if name in (*names, *ALWAYS, "closed")]


def cases(operators: tuple[str, ...], quick: bool, sections: tuple[str, ...] = SECTIONS) -> list[Case]:
    """Return all cases that a run measures for these operators, in order.

    quick     True: small shapes, and one size per axis of growth
    sections  names out of SECTIONS; cases of other sections are left out
    """
    found = []
    for name in operators:
        if quick:
            found += [Case("operators", name, shape) for shape in _QUICK[name]]
        else:
            found += [Case("operators", name, shape, model) for model, s in _SHAPES[name].items() for shape in s]
    found += [Case("simulated", name, _FEW[name], "SmolLM2") for name in operators]
    for name in operators:
        for axis, (pattern, sizes) in _GROWTH.get(name, {}).items():
            for size in sizes[:1] if quick else sizes:
                shape = tuple(size if place == -1 else place for place in pattern)
                found.append(Case("growth", name, shape, "SmolLM2", axis, size))
    return [case for case in found if case.section in sections]
