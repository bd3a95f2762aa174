"""Name the levels of each site of a whole spiking model, and read them from a request to `convert`."""

from __future__ import annotations

from dataclasses import dataclass

from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Fields, check_types
from spikeplug.operators.linear.levels import MOST_LEVELS

#: Channels that share a step where the residual stream cannot be rotated.
BLOCK = 32


@dataclass(frozen=True, kw_only=True)
class Whole(Fields):
    """Set the levels of each site of a whole spiking model: |m| <= levels. All other tensors have numerics.bits bits.

    inputs         of linear layers, embeddings excepted: spike counts per input. Up to 127 fit one int8 product, 256
                   take two
    weights        of linear layers, embeddings and convolutions; 127 fills an int8
    cache          of keys and values
    block          channels that share a step in inputs that are not rotated; 0: the whole vector
    rotated_block  the same in inputs that are rotated
    rotate         fold and rotate the residual stream where the architecture lets it

    Errors: SpikeplugError for any value out of its domain.
    """

    inputs: int = 256
    weights: int = 127
    cache: int = 127
    block: int = BLOCK
    rotated_block: int = 0
    rotate: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        for names, least, most in (
            (("inputs", "cache"), 1, MOST_LEVELS),
            (("weights",), 1, 127),  # an int8 holds no more
            (("block", "rotated_block"), 0, 1 << 20),
        ):
            for name in names:
                if not least <= getattr(self, name) <= most:
                    raise SpikeplugError(f"{name} is {getattr(self, name)}; it must lie between {least} and {most}.")

    @classmethod
    def of_bits(cls, bits: int) -> Whole:
        """Return the recipe whose inputs have `bits` bits, the sign included, 4 to 9; keys and values have 8 at most.

        With 9 bits, the default, |m| <= 256; with fewer, |m| <= 2^(bits-1) - 1. Up to 5 bits, 16 channels share a step.
        """
        if not isinstance(bits, int) or not 4 <= bits <= 9:
            raise SpikeplugError(f"bits is {bits!r}: choose 4 to 9.")
        if bits == 9:
            return cls()
        levels, few = (1 << (bits - 1)) - 1, bits <= 5
        return cls(inputs=levels, cache=levels, block=16 if few else BLOCK, rotated_block=16 if few else 0)
