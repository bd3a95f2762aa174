"""Sum x xᵀ over calibration tokens, and factor its inverse."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError


class Hessian:
    """The sum of x xᵀ over the inputs x of one layer: the Hessian of the squared error of its outputs, per row, halved.

    width   inputs of the layer
    name    of the layer, for messages
    tokens  inputs added so far

    Memory: width² float64 numbers.
    """

    def __init__(self, width: int, name: str = "the layer", device: torch.device | str = "cpu") -> None:
        self.name = name
        self.tokens = 0
        self._sum = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, x: Tensor) -> None:
        """Add inputs. x: (..., width), floating.

        Products are taken in float32 over at most 512 tokens, and these sums are added in float64.
        Errors: SpikeplugError for another width, and for NaN or infinity.
        """
        if x.shape[-1] != self._sum.shape[0]:
            raise SpikeplugError(f"{self.name} has {self._sum.shape[0]} inputs, but {x.shape[-1]} were given.")
        rows = x.detach().reshape(-1, x.shape[-1])
        rows = rows if rows.dtype == torch.float64 else rows.float()
        if not bool(rows.isfinite().all()):
            raise SpikeplugError(
                f"the calibration text gives NaN or infinity at {self.name}: check the model's weights."
            )
        for part in rows.split(512):
            self._sum += (part.T @ part).to(self._sum)
        self.tokens += rows.shape[0]

    def matrix(self) -> Tensor:
        """Return the mean of x xᵀ, float64 (width, width). Errors: SpikeplugError if nothing was added."""
        if self.tokens == 0:
            raise SpikeplugError(
                f"the calibration text never reached {self.name}: give a longer text, or round it to nearest."
            )
        return self._sum / self.tokens

    def dead_channels(self) -> tuple[int, ...]:
        """Return the inputs that were 0 in every token."""
        return tuple(torch.nonzero(self._sum.diagonal() == 0).flatten().tolist())


def inverse_factor(matrix: Tensor, damping: float, act_order: bool) -> tuple[Tensor, Tensor]:
    """Return an order of the inputs, and the upper Cholesky factor U of the damped inverse in that order: H^-1 = Uᵀ U.

    matrix     symmetric, positive semidefinite (width, width), float64
    damping    number added to the diagonal, as a part of its mean; multiplied by ten until the matrix can be factored
    act_order  True: inputs by falling mean square, equal ones as they are; False: as they are

    Errors: SpikeplugError if it cannot be factored.
    """
    diagonal = matrix.diagonal()
    order = torch.argsort(diagonal, descending=True, stable=True) if act_order else torch.arange(len(diagonal))
    order = order.to(matrix.device)
    ordered = matrix[order][:, order]
    mean = float(diagonal.mean()) or 1.0
    for attempt in range(5):
        damped = ordered.clone()
        damped.diagonal().add_(max(damping, 1e-9) * 10**attempt * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if int(failed) == 0:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if int(failed) == 0:
                return order, upper
    raise SpikeplugError("the calibration inputs give a matrix that cannot be factored: give a longer text.")
