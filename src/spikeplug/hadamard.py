"""Build Hadamard matrices, and apply large ones by their Kronecker factors.

Orders: 1, 2 and 4 (Sylvester), q + 1 for a prime q = 3 mod 4 (Paley I), 2(q + 1) for a prime q = 1 mod 4 (Paley II),
and all products of these: 12, 20, 28, 36, 576 = 12·12·4, 896 = 28·32, ...
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError

#: Largest factor that is built by Paley's constructions. Applying a factor of order m costs m additions per element.
_LARGEST_FACTOR = 512


@cache
def factors_of(order: int) -> tuple[int, ...]:
    """Return orders of Hadamard matrices that can be built and whose product is `order`, the smallest sum first.

    Returns an empty tuple if no Hadamard matrix of this order can be built from them.
    """
    if order < 1:
        return ()
    if order in (1, 2, 4):
        return (order,)
    found: list[tuple[int, ...]] = []
    if _is_paley(order):
        found.append((order,))
    for factor in range(2, min(order // 2, _LARGEST_FACTOR) + 1):
        if order % factor == 0 and (factor in (2, 4) or _is_paley(factor)):
            rest = factors_of(order // factor)
            if rest:
                found.append(tuple(sorted((factor, *rest), reverse=True)))
    return min(found, key=lambda factors: (sum(factors), len(factors)), default=())


def hadamard(order: int) -> Tensor:
    """Return a Hadamard matrix (order, order) of ±1, int8: H Hᵀ = order · I.

    Errors: SpikeplugError if none can be built.
    """
    factors = factors_of(order)
    if not factors:
        raise SpikeplugError(f"no Hadamard matrix of order {order} can be built: use blocks of a power of two.")
    matrix = torch.ones(1, 1, dtype=torch.int8)
    for factor in factors:
        matrix = torch.kron(matrix, _built(factor))
    return matrix


def apply_hadamard(x: Tensor, order: int) -> Tensor:
    """Return H x / sqrt(order) over the last dimension, in x's dtype: an orthogonal transform.

    x  (..., order), floating

    The factors are applied one after the other: order · Σ factors additions in place of order².
    """
    factors = factors_of(order)
    if not factors:
        raise SpikeplugError(f"no Hadamard matrix of order {order} can be built: use blocks of a power of two.")
    shape = x.shape
    left, right = 1, order
    for factor in factors:
        right //= factor
        # Made from numbers, so that a tracer gets a tensor of its own kind.
        matrix = torch.tensor(_rows(factor), device=x.device, dtype=x.dtype)
        x = matrix @ x.reshape(-1, left, factor, right)
        left *= factor
    return x.reshape(shape) / math.sqrt(order)


@cache
def _rows(order: int) -> list[list[int]]:
    with torch.utils._python_dispatch._disable_current_modes():  # of a tracer, perhaps
        rows: list[list[int]] = _built(order).tolist()
    return rows


@cache
def _built(order: int) -> Tensor:
    """Return one factor of a Hadamard matrix: of order 1, 2 or 4, or a Paley matrix; int8 (order, order)."""
    if order in (1, 2):
        return torch.tensor([[1, 1], [1, -1]], dtype=torch.int8)[:order, :order]
    if order == 4:
        return torch.kron(_built(2), _built(2))
    return _paley_one(order - 1) if order % 4 == 0 and _is_prime(order - 1) else _paley_two(order // 2 - 1)


def _is_paley(order: int) -> bool:
    if order % 4 or order < 8 or order > _LARGEST_FACTOR:
        return False
    half = order // 2 - 1
    return _is_prime(order - 1) or (half % 4 == 1 and _is_prime(half))


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _jacobsthal(prime: int) -> Tensor:
    """Return Q (prime, prime), int8: 0 on the diagonal, 1 where i - j is a square modulo the prime, else -1."""
    character = torch.full((prime,), -1, dtype=torch.int8)
    character[[(k * k) % prime for k in range(1, prime)]] = 1
    character[0] = 0
    index = torch.arange(prime)
    matrix: Tensor = character[(index[:, None] - index) % prime]
    return matrix


def _paley_one(prime: int) -> Tensor:
    """Return I + S for S = [[0, 1ᵀ], [-1, Q]], of order prime + 1; the prime is 3 mod 4."""
    matrix = torch.ones(prime + 1, prime + 1, dtype=torch.int8)
    matrix[1:, 0] = -1
    matrix[1:, 1:] = _jacobsthal(prime) + torch.eye(prime, dtype=torch.int8)
    return matrix


def _paley_two(prime: int) -> Tensor:
    """Return C ⊗ [[1, 1], [1, -1]] + I ⊗ [[1, -1], [-1, -1]] for C = [[0, 1ᵀ], [1, Q]]; the prime is 1 mod 4."""
    core = torch.ones(prime + 1, prime + 1, dtype=torch.int8)
    core[0, 0] = 0
    core[1:, 1:] = _jacobsthal(prime)
    identity = torch.eye(prime + 1, dtype=torch.int8)
    return torch.kron(core, torch.tensor([[1, 1], [1, -1]], dtype=torch.int8)) + torch.kron(
        identity, torch.tensor([[1, -1], [-1, -1]], dtype=torch.int8)
    )
