"""Define `Realisation`: which neurons compute an operator, at the same output bits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Fields, check_fields, check_types

Code = Literal["phase", "count", "population"]
Schedule = Literal["bits", "signed_digits", "count", "rate"]


@dataclass(frozen=True, kw_only=True)
class Realisation(Fields):
    """Choose the neurons and spike codes of a simulation. They change what is counted, never an output bit.

    code      how a spike train carries the n bits (`Numerics.bits`) of an output: `phase` (binary, n steps of 0/1),
              `count` (T steps of up to L spikes, T·L = 2^n) or `population` (2^n neurons, one step)
    steps     T of the count code, a power of two up to 2^n; None: 2^(n-1). Fixed by n for the other codes
    division  `restoring` (one neuron, a step per bit) or `ordered` (one neuron per quotient level)
    norm      `restoring` (squares by gating, restoring root neuron) or `ordered` (one neuron per level of both)
    schedule  how a level of b bits arrives at a linear layer. `bits`: b steps, weights doubling. `signed_digits`: b + 1
              steps of -1, 0 or 1, no two in a row, a third fewer spikes. `count`: 2^(b/2) steps of up to 2^(b/2)
              spikes. `rate`: 2^b steps of at most one spike

    Errors: SpikeplugError for any value out of its domain.
    """

    code: Code = "phase"
    steps: int | None = None
    division: Literal["restoring", "ordered"] = "restoring"
    norm: Literal["restoring", "ordered"] = "restoring"
    schedule: Schedule = "bits"

    def __post_init__(self) -> None:
        check_types(self)
        if self.steps is None:
            return
        if self.code != "count":
            raise SpikeplugError(f"steps is only free for code='count'; leave it out for code={self.code!r}.")
        if self.steps < 1 or self.steps & (self.steps - 1):
            raise SpikeplugError(f"steps is {self.steps}; T must be a power of two.")

    def time_steps(self, bits: int) -> int:
        """Return T: the time steps in which one value of `bits` bits is sent.

        Errors: SpikeplugError if the steps of the count code exceed 2^bits.
        """
        if self.code == "count":
            if self.steps is not None and self.steps > 1 << bits:
                raise SpikeplugError(f"steps is {self.steps}; T must be at most 2^bits = {1 << bits}.")
            return self.steps if self.steps is not None else 1 << (bits - 1)
        return bits if self.code == "phase" else 1

    def levels(self, bits: int) -> int:
        """Return the most spikes (or neurons) per time step with which one value of `bits` bits is sent."""
        return 1 if self.code == "phase" else (1 << bits) // self.time_steps(bits)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Realisation:
        """Return the realisation that `to_dict` wrote; missing fields take the default. Errors: SpikeplugError."""
        check_fields(cls, values)
        return cls(**values)
