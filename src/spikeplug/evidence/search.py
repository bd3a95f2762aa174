"""Search for the error closest to a bound: random inputs, every code of a grid, and hill climbing without gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeplug.evidence.distributions import adversarial, fit, gaussian
from spikeplug.evidence.primitives import Primitive
from spikeplug.evidence.subjects import HEAD_DIM, Subject
from spikeplug.numerics import Numerics
from spikeplug.operators.record import Bound

#: Elements of a grid computed at once.
_CHUNK = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Worst:
    """Hold the largest |error| / bound that was found, and its inputs.

    ratio    error / bound
    error    |spiking - exact| at the worst element, in units of the output (primitives: LSB)
    bound    the bound at the worst element, in the same units
    method   "exhaustive" (every code), "grid" (evenly spread codes), "climb" or "random"
    tried    number of inputs tried (for "climb": of vectors)
    inputs   the numbers of each input tensor, flattened
    element  index of the worst element in the output
    """

    ratio: float
    error: float
    bound: float
    method: str
    tried: int
    inputs: tuple[tuple[float, ...], ...]
    element: int


def ratios(subject: Subject, bound: Bound, numerics: Numerics, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return (ratio, error, bound): error = |spiking - exact|, ratio = error / bound, each (candidates, elements).

    The ratio is 0 where there is no error, or no finite bound.
    With numerics.input_bits, the inputs are rounded to that code first. Bound and exact function then take the rounded
    inputs, so rounding does not count as an error. Scores and angles are not rounded; their bounds include that error.
    """
    coded = subject.as_coded(inputs, numerics)
    exact = subject.exact(*coded)
    error = (subject.spiking(*inputs, numerics=numerics) - exact).abs()
    limit = bound(*coded, numerics=numerics).reshape(exact.shape)
    ratio = torch.where((error > 0) & torch.isfinite(exact) & torch.isfinite(limit), error / limit, 0.0)
    return ratio.flatten(1), error.flatten(1), limit.flatten(1)


def climb(
    subject: Subject, bound: Bound, numerics: Numerics, dimension: int, *, candidates: int, steps: int, seed: int = 0
) -> Worst:
    """Search for the largest error / bound by hill climbing, and return the worst that was found.

    dimension   length of the vectors
    candidates  inputs that start, half Gaussian and half adversarial; an eighth of them for attention
    steps       changes tried on each candidate; a change is kept if it makes error / bound larger

    A change affects a few coordinates: steps of the encoder's grid, a relative change, a new number, a copy of a
    neighbour. Another change makes the whole vector slightly larger.
    Half-way, copies of the better quarter replace the other candidates.
    """
    generator = torch.Generator().manual_seed(seed)
    if subject.attends:
        candidates = max(4, candidates // 8)  # each candidate has its own keys and values
    inputs = _starts(subject, dimension, candidates, generator)
    best = ratios(subject, bound, numerics, inputs)[0].amax(-1)
    for step in range(steps):
        if step == steps // 2:
            order = best.argsort(descending=True)[: max(1, candidates // 4)]
            order = order.repeat(4)[:candidates] if candidates >= 4 else order
            inputs, best = tuple(x[order] for x in inputs), best[order]
        changed = tuple(
            fit(role, _changed(x, numerics, generator)) for role, x in zip(subject.roles, inputs, strict=True)
        )
        ratio = ratios(subject, bound, numerics, changed)[0].amax(-1)
        better = ratio > best
        best = torch.where(better, ratio, best)
        inputs = tuple(
            torch.where(better.view(-1, *[1] * (x.dim() - 1)), new, x) for x, new in zip(inputs, changed, strict=True)
        )
    return _worst(subject, bound, numerics, inputs, "climb", candidates * (steps + 1))


def grid(subject: Subject, bound: Bound, numerics: Numerics, count: int) -> Worst | None:
    """Search every input code of an operator of one number for the largest error / bound, and return the worst.

    None if the operator's inputs have no grid of codes.
    Each code is tried at its own value, and just below half a step above it.
    count  if there are more than about `count` values, an evenly spread part of them is tried
    """
    every = _codes(subject, numerics)
    if every is None:
        return None
    stride = -(-len(every) // count)
    codes = every[:: stride | 1]  # an odd stride, so that every low bit varies
    worst: Worst | None = None
    for chunk in codes.split(_CHUNK):
        found = _worst(subject, bound, numerics, (chunk[:, None],), "grid", 1)
        worst = found if worst is None or found.ratio > worst.ratio else worst
    assert worst is not None
    method = "exhaustive" if len(codes) == len(every) else "grid"
    return Worst(**{**vars(worst), "method": method, "tried": len(codes)})


def primitive_worst(primitive: Primitive, *, published: bool = False) -> Worst:
    """Return the largest error / bound over all inputs of a primitive; error and bound are in LSB.

    published  True: compare with the published bound; False: with ours, the proven one
    """
    error = primitive.closed(*primitive.inputs).double() - primitive.exact(*primitive.inputs)
    if published:
        assert primitive.published is not None
        limit = primitive.published(*primitive.inputs)
    else:
        above, below = primitive.bound(*primitive.inputs)
        limit = torch.where(error > 0, above, below)
    ratio = torch.where(error == 0, 0.0, error.abs() / limit).flatten()
    place = int(ratio.argmax())
    return Worst(
        ratio=float(ratio[place]),
        error=float(error.abs().flatten()[place]),
        bound=float(limit.expand(error.shape).flatten()[place]),
        method="exhaustive" if primitive.exhaustive else "random",
        tried=len(ratio),
        inputs=tuple(_numbers(x[place]) for x in primitive.inputs),
        element=0,
    )


def _codes(subject: Subject, numerics: Numerics) -> Tensor | None:
    """Return all inputs, float64, that an operator of one number can tell apart, each also almost half a step higher.

    For a periodic operator, the inputs of one period. None if the operator has no grid of codes.
    """
    step, width, kind = 2.0**-numerics.fraction_bits, numerics.working_bits, subject.record.grid
    if kind == "exponent":
        reach = 24.0 if numerics.exponential == "shift" else 2 * max(numerics.half_range, numerics.softmax_half_range)
        if subject.name == "exp" and numerics.exponential == "piecewise":
            reach = numerics.softmax_half_range
        unit = math.log(2) if numerics.exponential == "shift" else 1.0  # codes are in octaves or nats
        codes = torch.arange(-int(reach / (step * unit)), int(reach / (step * unit)) + 1).double() * (step * unit)
        return torch.cat([codes, codes + 0.499 * step * unit])
    if kind == "turn":
        codes = torch.arange(1 << width).double()
        return torch.cat([codes, codes + 0.499]) * (2 * math.pi / (1 << width))
    if kind == "octaves":
        codes = torch.arange(1 << (width - 2), 1 << (width - 1)).double() * 2.0 ** (2 - width)
        codes = torch.cat([codes, codes + 0.499 * 2.0 ** (2 - width)])
        return torch.cat([codes, 2 * codes])  # two octaves: the period of a root
    return None


def _starts(subject: Subject, dimension: int, candidates: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return the first candidates, one tensor per input: half Gaussian times 2^-6 to 2^6, half adversarial.

    Shapes: (candidates, dimension); for attention (candidates, vectors, HEAD_DIM).
    """
    seed = int(torch.randint(0, 1 << 30, (1,), generator=generator))
    draws = gaussian(seed), adversarial(seed)
    starts = []
    for role in subject.roles:
        width = HEAD_DIM if subject.attends else dimension
        vectors = dimension if role in ("key", "value") else 1
        rows = [candidates - candidates // 2, candidates // 2]
        parts = [draw(role, n * vectors, width).view(n, vectors, width) for draw, n in zip(draws, rows, strict=True)]
        scale = torch.exp2(12 * torch.rand(rows[0], 1, 1, generator=generator, dtype=torch.float64) - 6)
        x = fit(role, torch.cat([parts[0] * scale, parts[1]]))
        starts.append(x if subject.attends else x.squeeze(1))
    return tuple(starts)


def _changed(x: Tensor, numerics: Numerics, generator: torch.Generator) -> Tensor:
    """Return a copy of x with some coordinates of each candidate (first dimension) changed.

    How many coordinates, and in which way, is drawn for each candidate.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    flat = x.flatten(1)
    count, width = flat.shape
    noise = torch.randn(count, width, generator=generator, dtype=torch.float64)
    size = torch.exp2(-uniform(count, 1) * (numerics.working_bits + 2))
    steps = (noise * 4).round() / 2 * 2.0**-numerics.fraction_bits
    kinds = torch.stack(
        [flat + steps, flat * (1 + noise * size), noise * 4, flat.roll(1, -1) + steps, flat * torch.exp2(size)]
    )
    kind = torch.randint(0, len(kinds), (count,), generator=generator)
    new = kinds[kind, torch.arange(count)]
    touched = uniform(count, width) < torch.maximum(uniform(count, 1) ** 3, torch.tensor(1.5 / width))
    whole = (kind == len(kinds) - 1)[:, None]
    return torch.where(touched | whole, new, flat).view(x.shape)


def _worst(
    subject: Subject, bound: Bound, numerics: Numerics, inputs: tuple[Tensor, ...], method: str, tried: int
) -> Worst:
    ratio, error, limit = ratios(subject, bound, numerics, inputs)
    place = int(ratio.argmax())
    row, element = divmod(place, ratio.shape[1])
    return Worst(
        ratio=float(ratio[row, element]),
        error=float(error[row, element]),
        bound=float(limit[row, element]),
        method=method,
        tried=tried,
        inputs=tuple(_numbers(x[row]) for x in inputs),
        element=element,
    )


def _numbers(x: Tensor) -> tuple[float, ...]:
    return tuple(x.reshape(-1).tolist())
