"""Name the integers that an operator's integer function takes, so that it can run without an encoder: as a circuit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeplug.codes import FIXED_RANGE_BITS, MASKED, Coded, Scores, fixed
from spikeplug.codes.elements import OCTAVES
from spikeplug.codes.scores import SCORE_BITS
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.receiver import RECEIVED_BITS

#: Exponents of codes that a circuit takes: those of float32, with the bits of a mantissa.
EXPONENTS = (-(1 << 8), 1 << 8)
#: (name, shape, low, high, full) -> integers within [low, high]. full: their magnitude is 0, or has all bits of `high`.
Give = Callable[[str, tuple[int, ...], int, int, bool], Tensor]


@dataclass(frozen=True)
class Operands:
    """Give the operands of an integer function, one by one, each as the encoders would.

    elements  numbers of the vector
    numerics  those of the operator
    give      makes the tensors
    weight    int8 (out, elements), that of a linear layer, which a circuit holds in its synapses; None: not given
    """

    elements: int
    numerics: Numerics
    give: Give
    weight: Tensor | None = None

    def vector(self, name: str, low: int, high: int, dtype: torch.dtype = torch.int64) -> Tensor:
        """Return an integer per element, (..., d)."""
        return self.give(name, (self.elements,), low, high, False).to(dtype)

    def shared(self, name: str, low: int, high: int, dtype: torch.dtype = torch.int64) -> Tensor:
        """Return an integer per vector, (..., 1)."""
        return self.give(name, (1,), low, high, False).to(dtype)

    def each_integer(self, name: str, low: int, high: int) -> Tensor:
        """Return an integer per element, each a vector of its own, int32 (..., d, 1)."""
        return self.give(name, (self.elements, 1), low, high, False).to(torch.int32)

    def amplitude(self) -> Coded:
        """Return the code of an activation's input, as `encode_amplitude` does."""
        if self.numerics.shift_scaling:
            bits = self.numerics.working_bits
            exponent = self.shared("exponent", *EXPONENTS, torch.int32)
            return Coded(self._signed("x", bits - 1), exponent, bits, "vector")
        bits = FIXED_RANGE_BITS + self.numerics.fraction_bits
        return fixed(self._signed("x", bits), self.numerics.fraction_bits, bits + 1)

    def opening(self, reach: int | None = None) -> Tensor:
        """Return the input of a gate, as `encode_gate` does: an exponent, or x itself up to `reach`."""
        bound = self._furthest() if reach is None else reach << self.numerics.fraction_bits
        return self.vector("opening", -bound, bound, torch.int32)

    def distance(self, fraction_bits: int | None = None) -> Tensor:
        """Return an exponent >= 0, as `encode_distance` does."""
        return self.vector("distance", 0, self._furthest(fraction_bits), torch.int32)

    def scores(self) -> Scores:
        """Return the scores of a row, as `encode_scores` does, all of them in range."""
        return Scores(self.vector("scores", MASKED, 1 << SCORE_BITS, torch.int32), None, None)

    def each(self, name: str = "x", *, negative: bool = True) -> Coded:
        """Return codes with an exponent per element, (..., d, 1), as `encode_elements` does."""
        bits = self.numerics.working_bits - 1
        return self._each(name, bits, 1 << bits, negative)

    def received(self, name: str) -> Coded:
        """Return received codes, (..., d, 1): 24 bits of which the first is 1, or 0."""
        return self._each(name, RECEIVED_BITS, (1 << RECEIVED_BITS) - 1, True)

    def received_vector(self) -> Coded:
        """Return the received codes of a vector, (..., d), with an exponent each."""
        most = (1 << RECEIVED_BITS) - 1
        mantissa = self.give("x", (self.elements,), -most, most, True).to(torch.int32)
        return Coded(mantissa, self.vector("exponent", *EXPONENTS, torch.int32), RECEIVED_BITS, "element")

    def _each(self, name: str, bits: int, most: int, negative: bool) -> Coded:
        shape = (self.elements, 1)
        mantissa = self.give(name, shape, -most if negative else 0, most, True).to(torch.int32)
        exponent = self.give(f"{name} exponent", shape, *EXPONENTS, False).to(torch.int32)
        return Coded(mantissa, exponent, bits, "element")

    def _signed(self, name: str, bits: int) -> Tensor:
        return self.vector(name, -1 << bits, 1 << bits, torch.int32)

    def _furthest(self, fraction_bits: int | None = None) -> int:
        places = self.numerics.fraction_bits if fraction_bits is None else fraction_bits
        return (OCTAVES if self.numerics.exponential == "shift" else 1 << FIXED_RANGE_BITS) << places
