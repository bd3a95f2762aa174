"""Name the levels of each site of a whole spiking model, and read them from a request to `convert`."""

from __future__ import annotations

from dataclasses import dataclass

from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Fields, check_types
from spikeplug.operators.linear.levels import MOST_LEVELS

#: Channels that share a step where the residual stream cannot be rotated.
BLOCK = 32
#: Inputs of a row whose weights share a factor, in int4 groups.
WEIGHT_GROUP = 16


@dataclass(frozen=True, kw_only=True)
class Whole(Fields):
    """Set the levels of each site of a whole spiking model: |m| <= levels. All other tensors have numerics.bits bits.

    inputs         of linear layers, embeddings excepted: spike counts per input. Up to 127 fit one int8 product, 256
                   take two
    weights        of linear layers, embeddings and convolutions; 127 fills an int8
    weight_group   0, or successive inputs of a row whose weights are 4-bit numbers times a factor that they share;
                   `weights` is without meaning then. A folder holds them packed
    cache          of keys and values
    block          channels that share a step in inputs that are not rotated; 0: the whole vector
    rotated_block  the same in inputs that are rotated
    rotate         fold and rotate the residual stream where the architecture lets it

    Errors: SpikeplugError for any value out of its domain.
    """

    inputs: int = 256
    weights: int = 127
    weight_group: int = 0
    cache: int = 127
    block: int = BLOCK
    rotated_block: int = 0
    rotate: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        for names, least, most in (
            (("inputs", "cache"), 1, MOST_LEVELS),
            (("weights",), 1, 127),  # an int8 holds no more
            (("block", "rotated_block", "weight_group"), 0, 1 << 20),
        ):
            for name in names:
                if not least <= getattr(self, name) <= most:
                    raise SpikeplugError(f"{name} is {getattr(self, name)}; it must lie between {least} and {most}.")

    @classmethod
    def of_bits(cls, bits: int = 9, weight_bits: int = 8) -> Whole:
        """Return the recipe whose inputs have `bits` bits, the sign included, 4 to 9; keys and values have 8 at most.

        With 9 bits, the default, |m| <= 256; with fewer, |m| <= 2^(bits-1) - 1. Up to 5 bits, 16 channels share a step.

        weight_bits  8, or 4: weights in int4 groups of WEIGHT_GROUP inputs
        """
        if not isinstance(bits, int) or not 4 <= bits <= 9:
            raise SpikeplugError(f"bits is {bits!r}: choose 4 to 9.")
        if weight_bits not in (4, 8):
            raise SpikeplugError(f"weight_bits is {weight_bits!r}: choose 8, or 4 for weights in int4 groups.")
        group = WEIGHT_GROUP if weight_bits == 4 else 0
        if bits == 9:
            return cls(weight_group=group)
        levels, few = (1 << (bits - 1)) - 1, bits <= 5
        block, rotated = (16, 16) if few else (BLOCK, 0)
        return cls(inputs=levels, weight_group=group, cache=levels, block=block, rotated_block=rotated)
