"""Arguments for every operator that has a kernel, and how tests run them: by the kernel, and in closed form."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from spikeplug.codes import affine
from spikeplug.kernels import registry
from spikeplug.kernels.protocol import Call
from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.neuron import as_threshold
from spikeplug.saturation import reset_saturations, saturations

#: Every corner of the numbers a kernel takes from a numerics.
CONFIGS = {
    "default": Numerics(),
    "fewest bits": Numerics(bits=2, working_bits=3, fraction_bits=4, segments=1),
    "most bits": Numerics(bits=20, working_bits=24, fraction_bits=16, segments=4096),
    "no table": Numerics(bits=8, working_bits=24, fraction_bits=12, segments=4096),
    "most bits of attention's kernel": Numerics(bits=16, working_bits=24, query_key_bits=8, fraction_bits=16),
}
#: Shapes of two tensors that broadcast.
BROADCAST = [
    ((2, 3, 7, 5), (5,)),
    ((2, 3, 7, 5), ()),
    ((2, 3, 7, 5), (2, 1, 7, 5)),
    ((2, 1, 7, 5), (2, 3, 7, 5)),
    ((2, 3, 7, 5), (2, 3, 7, 1)),
    ((1, 1, 5), (4, 1)),
    ((1,), (1, 1)),
    ((2, 3, 4, 5, 6), (4, 1, 6)),
    ((2, 3, 4, 5, 6), (3, 1, 5, 1)),
    ((1, 64, 33), (1, 64, 33)),
    ((3, 5000), (3, 5000)),
    ((3, 5000), (3, 1)),
]
SHAPES = ((5,), (1, 1), (3, 7, 5), (123, 123), (2, 3, 1537), (7, 1))


def generator(*seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(hash(seed) & 0xFFFF)


def reals(*shape: int) -> dict[str, Tensor]:
    """Return float32 tensors of one shape, by what is hard about them."""
    g = generator(*shape)
    x = torch.randn(shape, generator=g)
    powers = 2.0 ** torch.randint(-30, 30, shape, generator=g)
    neighbours = 1 + torch.randint(-1, 2, shape, generator=g) * 2.0**-23
    grid = torch.randint(-(1 << 14), 1 << 14, shape, generator=g) / (1 << 13)
    odd = x.clone()
    odd.view(-1)[:: max(1, odd.numel() // 5)] = torch.tensor([math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45] * 2)[
        : len(odd.view(-1)[:: max(1, odd.numel() // 5)])
    ]
    return {
        "normal": x * 3,
        "large": x * 1e4,
        "huge": x * 1e30,
        "tiny": x * 1e-6,
        "denormal": x * 1e-40,
        "zeros": torch.zeros(shape),
        "minus zeros": -torch.zeros(shape),
        "constant": torch.full(shape, 0.37),
        "powers of two": powers * neighbours * x.sign(),
        "half steps": grid,
        "outlier": torch.where(torch.rand(shape, generator=g) < 0.02, x * 500, x),
        "not finite": odd,
    }


#: A neuron of each kind; that of FAS takes no negative numbers.
KINDS = ("st_bif -16 15", "st_bif 0 255", "qcfs 31", "few_spikes 16", "phase 2 2 2 2", "phase 1.5 1.7 3")


def thresholds(width: int, kind: str) -> list[tuple[Tensor, Tensor]]:
    """Return thresholds of a neuron and their units: one for all channels, and one for each."""
    each = 2.0 ** (torch.rand(width, generator=generator(width)) * 12 - 10)
    return [as_threshold(given, kind) for given in (torch.tensor(0.01), each)]


def vectors(name: str, x: Tensor) -> list[tuple[Any, ...]]:
    """Return arguments of an operator on vectors."""
    masked = x.masked_fill(torch.rand(x.shape, generator=generator(x.numel())) < 0.3, -math.inf)
    row = x.reshape(-1, x.shape[-1])[-1]
    given: dict[str, list[tuple[Any, ...]]] = {
        "softmax": [(x, -1), (masked, -1), (x, 0)],
        "gelu": [(x, "none"), (x, "tanh"), (x, "quick")],
        "rms_norm": [(x, 1e-6), (x, 0.0), (x, 10.0)],
        "layer_norm": [(x, 1e-5), (x, 0.0), (x + 3, 10.0)],
        "add": [(x, row), (x, x.flip(0))],
        "multiply": [(x, row), (x, x.flip(0))],
        "neuron": [(x, *threshold, kind) for kind in KINDS for threshold in thresholds(x.shape[-1], kind)],
    }
    return given.get(name, [(x,)])


def attentions(size: tuple[int, ...], dtype: torch.dtype = torch.float32) -> dict[str, tuple[Any, ...]]:
    """Return arguments of attention by kind; size: batch, heads, key heads, queries, keys, channels, value channels."""
    batch, heads, groups, queries, keys, channels, values = size
    g = generator(*size)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    query, key = randn(batch, heads, queries, channels) * 2, randn(batch, groups, keys, channels)
    octaves = 2.0 ** torch.randint(-20, 20, (batch, groups, keys, 1), generator=g)
    value = randn(batch, groups, keys, values) * octaves
    causal = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    scattered = torch.rand(batch, 1, queries, keys, generator=g) < 0.5
    scattered[:, :, 0] = False
    by_head = torch.rand(1, heads, queries, keys, generator=g) < 0.5
    bias, sinks = randn(heads, queries, keys) * 4, randn(heads) * 3
    broken = query.clone()
    broken[0, 0, 0, 0] = math.nan
    infinite = value.clone()
    infinite[0, 0, 0, 0] = math.inf
    plain: dict[str, tuple[Any, ...]] = {
        "plain": (query, key, value, None, None, None, None),
        "causal": (query, key, value, causal, 0.3, None, None),
        "a row that sees nothing": (query, key, value, scattered, None, None, None),
        "a mask a head": (query, key, value, by_head, None, None, None),
        "bias": (query, key, value, bias, None, None, None),
        "sinks": (query, key, value, scattered, None, None, sinks),
        "softcap": (query, key, value, causal, None, 5.0, None),
        "zero values": (query, key, torch.zeros_like(value), causal, None, None, None),
        "huge scores": (query, key, value, causal, 1e7, None, None),
        "a broken query": (broken, key, value, causal, None, None, None),
        "an infinite value": (query, key, infinite, causal, None, None, None),
    }
    return {
        kind: tuple(x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in given)
        for kind, given in plain.items()
    }


ATTENTION_SIZES = (
    (1, 1, 1, 1, 1, 1, 1),
    (2, 6, 2, 13, 29, 16, 24),
    (1, 4, 4, 5, 131, 17, 80),
    (1, 3, 1, 1, 70, 64, 64),
)


def by_kernel(name: str, given: tuple[Any, ...], numerics: Numerics | None = None, **after: Tensor) -> Tensor:
    """Return the kernel's result of a call that it must take, and leave no row of."""
    call = Call(name, given, numerics or Numerics(), **after)
    kernel, taken, reason = registry.choose(call)
    assert kernel is not None, reason
    output, rare = kernel.run(taken)
    assert rare is None
    return output if taken is call else affine(output, **after)


def closed_form(name: str, given: tuple[Any, ...], numerics: Numerics | None = None, **after: Tensor) -> Tensor:
    """Return the closed form's result."""
    return affine(OPERATORS[name].spiking(*given, numerics=numerics or Numerics()), **after)


def both(
    name: str, given: tuple[Any, ...], numerics: Numerics | None = None, *, taken: bool = True, **after: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what the registry gives, which must choose a kernel, and the closed form; their ledgers must be equal.

    taken: False if the registry must choose the closed form.
    """
    call = Call(name, given, numerics or Numerics(), **after)
    assert (registry.choose(call)[0] is not None) is taken
    reset_saturations()
    ours = registry.run(call, lambda part: closed_form(name, part.arguments, part.numerics, **present(part)))
    counted = saturations()
    reset_saturations()
    closed = closed_form(name, given, numerics, **after)
    assert counted == saturations(), name
    return ours, closed


def present(call: Call) -> dict[str, Tensor]:
    """Return the weight and bias that a call has."""
    return {name: x for name, x in (("weight", call.weight), ("bias", call.bias)) if x is not None}


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether shape, dtype and bits are equal, whichever NaN it is."""
    if a.shape != b.shape or a.dtype != b.dtype or not torch.equal(a.isnan(), b.isnan()):
        return False
    bits = torch.int32 if a.element_size() == 4 else torch.int16
    return torch.equal(*(x.masked_fill(x.isnan(), 0.0).contiguous().view(bits) for x in (a, b)))


class WrongKernel:
    """A kernel that takes every call and returns zeros."""

    def supports(self, call: Call) -> str | None:
        return None

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        return torch.zeros_like(call.arguments[0]), None
