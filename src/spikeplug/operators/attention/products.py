"""Multiply queries and keys, tile by tile: exactly as integer codes, or by the model's own float product."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.codes import encode_for_product, power_of_two
from spikeplug.operators.attention.tiles import Tile
from spikeplug.primitives.arithmetic import Arithmetic

Product = Callable[[Tile], Tensor]


def query_key_product(query: Tensor, key: Tensor, factor: float, on: Arithmetic) -> Product:
    """Return a function of a tile, which returns query·keyᵀ·factor of its rows and keys.

    The result is (heads, groups·rows, keys), in the inputs' dtype.
    query (B, G, groups, Q, D), key (B, G, K, D), float32 or float64.

    With query_key_bits, every query and key is a vector of integers and one power of two.
    Their product is an integer below 2^53, so it is exact.
    A score is this product times both scales and the factor in float64, rounded once.
    So a score does not depend on other scores, on a tile or on a device.
    For a query or key that is not finite, the float product gives the score.
    """
    if on.numerics.query_key_bits is None:
        # The factor is folded into the queries.
        return _float_product(query * factor, key)
    return _exact_product(query, key, factor, on.numerics.query_key_bits, on)


def _rows(x: Tensor, tile: Tile) -> Tensor:
    """Cut the batch entry, key heads and query rows of `tile` from x (B, G, groups, Q, ...).

    The result is (heads, groups·rows, ...).
    """
    return x[tile.batch, tile.heads, :, tile.rows].flatten(1, 2)


def _keys(x: Tensor, tile: Tile) -> Tensor:
    """Cut the batch entry, key heads and keys of `tile` from x (B, G, K, channels), and transpose them.

    The result is (heads, channels, keys).
    """
    return x[tile.batch, tile.heads, tile.keys].mT


def _float_product(query: Tensor, key: Tensor) -> Product:
    return lambda tile: torch.matmul(_rows(query, tile), _keys(key, tile))


class _Vectors(NamedTuple):
    """Hold vectors (queries or keys) as integers times one scale per vector.

    codes   int32 (..., D): a vector is codes·scale
    scale   float64 (..., 1), a power of two
    broken  bool (..., 1): vectors that are not finite, coded as 0
    """

    codes: Tensor
    scale: Tensor
    broken: Tensor


def _coded(x: Tensor, bits: int) -> _Vectors:
    # Saturations are not recorded here: a hidden vector has no effect, and a row that attends to one records itself.
    broken = ~torch.isfinite(x).all(-1, keepdim=True)
    code = encode_for_product(x.masked_fill(broken, 0.0), bits)
    return _Vectors(code.mantissa, power_of_two(code.exponent, torch.float64), broken)


def _exact_product(query: Tensor, key: Tensor, factor: float, bits: int, on: Arithmetic) -> Product:
    queries, keys = _coded(query, bits), _coded(key, bits)
    query_scale = queries.scale * factor
    broken = bool(queries.broken.any()) or bool(keys.broken.any())
    floating = _float_product(query * factor, key) if broken else None

    def product(tile: Tile) -> Tensor:
        total = on.signed_dot(_rows(queries.codes, tile), _keys(keys.codes, tile), bits - 1, bits - 1)
        score = (total.to(torch.float64) * _rows(query_scale, tile) * _keys(keys.scale, tile)).to(query.dtype)
        if floating is not None:
            score = torch.where(_rows(queries.broken, tile) | _keys(keys.broken, tile), floating(tile), score)
        return score

    return product
