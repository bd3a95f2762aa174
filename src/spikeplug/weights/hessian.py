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

    Memory: width² float64 numbers, twice as many once it is factored, and four times as many meanwhile.
    """

    def __init__(self, width: int, name: str = "the layer", device: torch.device | str = "cpu") -> None:
        self.name, self.width = name, width
        self.tokens = 0
        self._factored: tuple[tuple[float, bool], tuple[Tensor, Tensor]] | None = None
        self._sum = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, x: Tensor) -> None:
        """Add inputs. x: (..., width), floating.

        Products are taken in float32 over at most 512 tokens, and these sums are added in float64.
        Errors: SpikeplugError for another width, and for NaN or infinity.
        """
        if x.shape[-1] != self.width:
            raise SpikeplugError(f"{self.name} has {self.width} inputs, but {x.shape[-1]} were given.")
        self._factored = None
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
        return self._mean(self._sum)

    def inverse_factor(self, damping: float, act_order: bool) -> tuple[Tensor, Tensor]:
        """Return `inverse_factor` of the matrix. It is kept, for all layers that read the same inputs."""
        if self._factored is None or self._factored[0] != (damping, act_order):
            self._factored = (damping, act_order), inverse_factor(self.matrix(), damping, act_order)
        return self._factored[1]

    def mean_squares(self) -> Tensor:
        """Return the mean of x², float64 (width,). Errors: as of `matrix`."""
        return self._mean(self._sum.diagonal())

    def _mean(self, total: Tensor) -> Tensor:
        if self.tokens == 0:
            raise SpikeplugError(
                f"the calibration text never reached {self.name}: give a longer text, or round it to nearest."
            )
        return total / self.tokens

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
    mean, diagonal = float(diagonal.mean()) or 1.0, diagonal[order]
    damped = matrix[order[:, None], order]
    del matrix  # a caller that does not keep it has room for the inverse
    for attempt in range(5):
        damped.diagonal().copy_(diagonal + max(damping, 1e-9) * 10**attempt * mean)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if int(failed) == 0:
            factor = torch.cholesky_inverse(factor)
            factor, failed = torch.linalg.cholesky_ex(factor, upper=True)
            if int(failed) == 0:
                return order, factor
    raise SpikeplugError("the calibration inputs give a matrix that cannot be factored: give a longer text.")
