"""Draw inputs: Gaussian numbers, adversarial ones, and activations recorded from a language model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.evidence.subjects import Draw

DISTRIBUTIONS = ("gaussian", "activations", "adversarial")
#: Scale of rotary angles, in radians: they reach the context length.
_ANGLES = 1000.0
#: Beyond this, exp overflows float32.
_EXPONENTS = 80.0


def fit(role: str, x: Tensor) -> Tensor:
    """Return x limited to what its kind of number allows.

    role  "positive": |x|, at least 2^-100. "exponent": x clamped to [-80, 80], where exp is finite in float32.
          Any other kind: x as it is
    """
    if role == "positive":
        return x.abs().clamp(min=2.0**-100)
    return x.clamp(-_EXPONENTS, _EXPONENTS) if role == "exponent" else x


def gaussian(seed: int = 0) -> Draw:
    """Return a function that draws Gaussian inputs: (role, rows, width) -> float64 (rows, width).

    role names the kind of number. "angle": N(0, 1000²). "positive": |N(0, 1)|. All others: N(0, 1).
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(role: str, rows: int, width: int) -> Tensor:
        x = torch.randn(rows, width, generator=generator, dtype=torch.float64)
        return fit(role, x * _ANGLES if role == "angle" else x)

    return draw


def activations(pools: Mapping[str, Tensor], seed: int = 0) -> Draw:
    """Return a function that draws pieces of recorded activations: (role, rows, width) -> float64 (rows, width).

    pools  recorded rows by role, the kind of number; (recorded rows, recorded width) each, from `recording.record`

    If `width` is at most the recorded width, a drawn row is a piece of one recorded row, at a random offset.
    If it is larger, consecutive recorded rows are joined.
    For attention, whole rows are drawn in their order, from the middle of the recording on.
    So queries, keys and values are of the same layer and token. After the last row, the first follows.
    Errors: the drawing function raises SpikeplugError if a role has fewer than `width` recorded numbers.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(role: str, rows: int, width: int) -> Tensor:
        pool = pools[role]
        flat = pool.reshape(-1)
        if len(flat) < width:
            raise SpikeplugError(
                f"{len(flat)} recorded numbers of kind {role} do not fill a vector of {width}: record more tokens, or "
                "measure smaller dimensions."
            )
        own = pool.shape[-1]
        if role in ("query", "key", "value") and width == own:
            return pool[(len(pool) // 2 + torch.arange(rows)) % len(pool)]
        starts = torch.randint(0, max(1, (len(flat) - width) // own + 1), (rows, 1), generator=generator) * own
        if width < own:
            starts = starts + torch.randint(0, own - width + 1, (rows, 1), generator=generator)
        return fit(role, flat[starts.clamp(max=len(flat) - width) + torch.arange(width)].to(torch.float64))

    return draw


def adversarial(seed: int = 0) -> Draw:
    """Return a function that draws hard inputs: (role, rows, width) -> float64 (rows, width).

    Rows are of ten kinds in turn: constants, one-hots, single outliers, ties, magnitudes of every size, half steps,
    powers of two and their neighbours, one element far above the rest, tiny values, a mean far above the deviation.
    role, the kind of number, limits the values: positive, for example.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(role: str, rows: int, width: int) -> Tensor:
        return fit(role, torch.stack([_nasty(row, width, generator) for row in range(rows)]))

    return draw


def _nasty(kind: int, width: int, generator: torch.Generator) -> Tensor:
    """Return one adversarial row, float64 (width,), of the kind with that number, taken modulo ten.

    Kinds: constants, one-hots, outliers, ties, magnitudes of every size, half steps, powers of two and their
    neighbours, one element far above the rest, tiny values, a mean far larger than the deviation.
    """
    noise = torch.randn(width, generator=generator, dtype=torch.float64)
    place = torch.arange(width)
    spot = place == int(torch.randint(0, width, (1,), generator=generator))
    size = float(torch.randint(-3, 6, (1,), generator=generator))
    kinds = (
        lambda: torch.full_like(noise, 3.0 + size),
        lambda: spot.to(torch.float64) * 2**size,
        lambda: torch.where(spot, 500 * noise, noise),
        lambda: noise.round() * 2**size,
        lambda: noise.sign() * torch.exp2(noise * 6),
        lambda: (torch.floor(noise * 2**14) + 0.5) * 2.0**-13,  # half-way between the encoder's steps
        lambda: noise.sign() * torch.exp2((place % 12) - 6.0) * (1 + ((place % 3) - 1) * 2.0**-20),
        lambda: torch.where(spot, noise, noise - 12),  # one element far above the rest
        lambda: noise * 1e-4,
        lambda: 1000.0 + noise * 1e-2,  # a mean far larger than the deviation
    )
    return kinds[kind % len(kinds)]()
