"""State by how much the coding of queries and keys changes scores, for attention's bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.numerics import Numerics
from spikeplug.operators.errors import as_coded, product_error

#: Channels of a head in tests and measurements, as in the recorded model.
HEAD_DIM = 64


def coded_scores(query: Tensor, key: Tensor, numerics: Numerics) -> tuple[Tensor, Tensor]:
    """Return (scores (..., Q, K), e^(2η) - 1 (..., Q, 1)) of queries (..., Q, D) and keys (..., K, D) after coding.

    The scores are those of the queries and keys rounded to numerics.query_key_bits, times 1/sqrt(64).
    Coding changes a score by at most η, and so a probability by a factor of at most e^(2η).
    """
    moved = torch.expm1(2 * product_error(query, key, HEAD_DIM**-0.5, numerics))
    return as_coded(query, numerics) @ as_coded(key, numerics).mT * HEAD_DIM**-0.5, moved
