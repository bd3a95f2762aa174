"""Encode vectors in few levels, the spike counts that drive a linear layer: one firing threshold per vector or block.

    m = round(x / step),   step = smallest whole multiple of the input's unit with |x| <= levels·step

The encoder is the restoring neuron of `divide`, whose threshold is the step: no power of two is needed, and none of the
levels is lost to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.codes import Coded
from spikeplug.errors import SpikeplugError
from spikeplug.hadamard import apply_hadamard, factors_of, hadamard
from spikeplug.operators.linear.receiver import in_vectors
from spikeplug.operators.ratio import EXPONENT_BITS, normalise
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.divide import DivideSpec

#: Bits of a step, beyond those of the levels: a step is off the smallest possible one by at most 2^-11.
STEP_BITS = 12
#: A block's step is a whole number of shares, 2^-SHARE_BITS of the vector's step.
SHARE_BITS = 6
#: Levels that an int8 weight or operand may take.
MOST_LEVELS = 1 << 15
#: Largest order of the Hadamard matrix that rotates an input.
MOST_ROTATION = 1 << 15


@dataclass(frozen=True)
class Levels:
    """Numbers as levels of a step: x ≈ mantissa · step · 2^exponent.

    mantissa  int64 (..., d), |mantissa| < 2^bits; in blocks, a multiple of its block's shares
    step      int64 (..., 1), less than 2^step_bits: one firing threshold per vector
    exponent  integers (..., 1)
    """

    mantissa: Tensor
    step: Tensor
    exponent: Tensor
    bits: int
    step_bits: int


def check_levels(operator: str, levels: int, block: int, rotation: int) -> None:
    """Raise SpikeplugError unless levels, block and rotation are ones that `level_integers` takes."""
    if not 1 <= levels <= MOST_LEVELS:
        raise SpikeplugError(f"{operator} got levels={levels}: choose between 1 and {MOST_LEVELS}.")
    if block < 0:
        raise SpikeplugError(f"{operator} got block={block}: give channels per block, or 0 for the whole vector.")
    if rotation and (rotation < 2 or rotation > MOST_ROTATION or not factors_of(rotation)):
        raise SpikeplugError(
            f"{operator} got rotation={rotation}: give the order of a Hadamard matrix, such as a power of "
            f"two or 12 times one, up to {MOST_ROTATION}; or 0 for none."
        )


def level_integers(code: Coded, levels: int, block: int, on: Arithmetic) -> Levels:
    """Return the levels of each vector of a code, |mantissa| <= levels, rounded to nearest, halves away from 0.

    code    mantissa (..., d), as it was received, or as `rotated` returns it
    block   channels that share a step; 0: all. A block's step is a number of shares, from 1 to 2^SHARE_BITS
    """
    bits, shares = levels.bit_length(), SHARE_BITS if block else 0
    width = STEP_BITS + bits + shares
    magnitude, exponent = magnitudes(code, width, on)
    share, step_bits = (
        smallest_step(on.maximum(magnitude, width, "step/maximum"), levels << shares, width, on),
        STEP_BITS + 2,
    )
    if not block:
        count = _count(magnitude, share, width, bits, on)
        return Levels(on.signed(count, code.mantissa, bits + 1, "encoder/sign"), share, exponent, bits, step_bits)
    cut = _cut(magnitude, block)
    reach = on.scale(share, levels, step_bits, "block/reach").unsqueeze(-1)  # the largest number of one share per level
    number = _ceiling(on.maximum(cut, width, "block/maximum"), reach, width, on)
    number = on.clamp(number, 1, None, SHARE_BITS + 1, "block/least")
    own = on.gate(number, share.unsqueeze(-1), SHARE_BITS + 1, "block/step")
    count = on.gate(number, _count(cut, own, width, bits, on), SHARE_BITS + 1, "block/product")
    mantissa = on.signed(
        count.flatten(-2)[..., : magnitude.shape[-1]], code.mantissa, bits + shares + 1, "encoder/sign"
    )
    return Levels(mantissa, share, exponent, bits + shares, step_bits)


def magnitudes(code: Coded, width: int, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """Return magnitudes, at most 2^(width-1) and a vector's largest half of it at least, and the vectors' exponents."""
    if code.granularity == "element":
        vectors = in_vectors(code, width, on)  # with a guard bit
        return on.round_half(vectors.mantissa, width, "receiver/round"), vectors.exponent + 1
    magnitude, exponent = normalise(on.magnitude(code.mantissa, code.bits + 1), code.bits + 1, width - 1, on)
    return magnitude, on.add(code.exponent, exponent, EXPONENT_BITS, "exponent")


def smallest_step(top: Tensor, levels: int, width: int, on: Arithmetic) -> Tensor:
    """Return the smallest integer whose multiple by `levels` is at least `top`."""
    spec = DivideSpec(width + 1, levels.bit_length(), 0)
    return on.divide(on.add(top, levels - 1, width, "step/up"), torch.full_like(top, levels), spec, "step")


def _ceiling(x: Tensor, y: Tensor, width: int, on: Arithmetic) -> Tensor:
    """Return x / y for 0 <= x < 2^width and 0 <= y <= 2^width, rounded up; 0 for y = 0."""
    spec = DivideSpec(width + 2, width + 1, 0)
    raised = on.add(on.add(x, y, width + 1, "block/sum"), -1, width + 2, "block/up")
    return on.divide(on.clamp(raised, 0, None, width + 2, "block/none"), y, spec, "block/shares")


def _count(magnitude: Tensor, step: Tensor, width: int, bits: int, on: Arithmetic) -> Tensor:
    """Return magnitude / step, rounded to nearest, halves up: the spike count that the encoder sends."""
    twice = on.divide(magnitude, step, DivideSpec(width + 1, width, 1), "encoder")
    return on.round_half(twice, bits + 2, "encoder/round")


def _cut(x: Tensor, block: int) -> Tensor:
    """Return x (..., d) as (..., blocks, block); a last block that is not full is filled with 0."""
    missing = -x.shape[-1] % block
    cut: Tensor = F.pad(x, (0, missing)).unflatten(-1, (-1, block))
    return cut


def rotated(code: Coded, order: int, on: Arithmetic) -> Coded:
    """Return the code of H·x / 2^places, one exponent per vector, for each block of `order` channels.

    H       `hadamard(order)`; order 0: the code is returned as it is
    code    as it was received; mantissa (..., d), d a multiple of order
    places  half of log2(order), rounded down: the factor 1/sqrt(order), as far as an exponent holds it

    Only sums and differences, factor by factor of H. Mantissas become log2(order) bits wider.
    """
    if not order:
        return code
    vectors = in_vectors(code, code.bits, on)
    mantissa, bits = on.signed(vectors.mantissa, code.mantissa, code.bits, "receiver/sign"), code.bits
    left, right = mantissa.numel() // order, order
    for factor in factors_of(order):
        right //= factor
        signs = hadamard(factor).to(device=mantissa.device, dtype=torch.int64)
        blocks = mantissa.reshape(left, factor, right).transpose(-1, -2)
        mantissa = on.signed_dot(blocks, signs.T, bits + 1, 1, constant=True, name=f"rotation/{factor}")
        mantissa = mantissa.transpose(-1, -2)
        left, bits = left * factor, bits + (factor - 1).bit_length()
    return Coded(mantissa.reshape(code.mantissa.shape), vectors.exponent - half_places(order), bits, "vector")


def half_places(order: int) -> int:
    """Return half of log2(order), rounded down."""
    return (order.bit_length() - 1) // 2


def exactly_rotated(x: Tensor, order: int) -> Tensor:
    """Return H·x / 2^places for each block of `order` channels in float arithmetic; x unchanged for order 0."""
    if not order:
        return x
    turned = apply_hadamard(x.unflatten(-1, (-1, order)), order) * (order**0.5 / 2 ** half_places(order))
    flat: Tensor = turned.flatten(-2)
    return flat
