"""Find modules that compute rotary position factors, by running them, and compute these from whole positions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikeplug import library
from spikeplug.conversion.plug import Plug, refuse_proxies
from spikeplug.numerics import Numerics

#: How models repeat their factors along the channels of a head: both halves alike, pairs alike, or not at all.
REPEATS: dict[str, Callable[[Tensor], Tensor]] = {
    "halves": lambda x: torch.cat([x, x], -1),
    "pairs": lambda x: x.repeat_interleave(2, -1),
    "once": lambda x: x,
}
#: Positions at which a module is compared with the formula; a rope that follows the sequence's length differs here.
_PROBES = (0, 1, 7, 100, 3000)


class RotaryPlug(Plug):
    """Return cos and sin of position · frequency, from the module's own frequencies, in place of a rotary embedding."""

    label = "spiking rotary"

    def __init__(self, module: nn.Module, numerics: Numerics, repeat: str) -> None:
        super().__init__(module, numerics)
        self.repeat = repeat

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.detached:
            return self.original(*args, **kwargs)
        given = inspect.signature(type(self.module).forward).bind(self.module, *args, **kwargs).arguments
        x, positions = given["x"], given["position_ids"]
        refuse_proxies(self.module, (x, positions))
        operator, frequency = library.OPERATORS["rotary"], self.module.inv_freq
        positions = positions.to(torch.float32)
        factors = (operator(positions, frequency, quarters, numerics=self.numerics) for quarters in (1, 0))
        return tuple(REPEATS[self.repeat](factor).to(x.dtype) for factor in factors)


def find_rotary(module: nn.Module) -> str | None:
    """Return how a module repeats its rotary factors, if it computes cos and sin of position · inv_freq; else None.

    One of the names in REPEATS. The module is run on a few positions and compared with the formula.
    """
    frequency = module._buffers.get("inv_freq")
    forward = type(module).forward
    if not isinstance(frequency, Tensor) or frequency.dim() != 1 or frequency.is_meta:
        return None
    if list(inspect.signature(forward).parameters)[1:] != ["x", "position_ids"]:
        return None
    if getattr(module, "rope_type", "default") in ("dynamic", "longrope"):
        return None  # their frequencies follow the length of the sequence
    positions = torch.tensor([_PROBES], device=frequency.device)
    x = torch.zeros(1, len(_PROBES), 1, dtype=torch.float32, device=frequency.device)
    try:
        with torch.no_grad():
            found = module.forward(x, positions)
    except Exception:  # it is something else, and may do anything
        return None
    if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(part, Tensor) for part in found):
        return None
    angle = positions.to(torch.float64).unsqueeze(-1) * frequency.to(torch.float64)
    for name, repeat in REPEATS.items():
        wanted = [repeat(factor(angle)) for factor in (torch.cos, torch.sin)]
        if all(
            a.shape == b.shape and torch.allclose(a.to(torch.float64), b, atol=1e-3)
            for a, b in zip(found, wanted, strict=True)
        ):
            return name
    return None
