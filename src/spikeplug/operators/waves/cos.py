"""Compute the cosine from a table of one quarter wave."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import Coded
from spikeplug.operators.operands import Operands
from spikeplug.operators.record import Operator, elementwise
from spikeplug.operators.waves.wave import bound, input_range, sine_integers, wave
from spikeplug.primitives.arithmetic import Arithmetic


def cos(x: Tensor, *, on: Arithmetic) -> Tensor:
    """Return cos(x), x in radians, elementwise; x's shape and dtype. NaN and infinities give NaN.

    The result is a multiple of 2^-numerics.bits. The error bound is stated in `wave`.
    Errors: SpikeplugError for a non-floating tensor.
    """
    return wave(x, 1, on)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given: the phase, a quarter turn ahead of x."""
    turn = 1 << on.numerics.working_bits
    return sine_integers(given.each_integer("phase", 0, turn - 1), on)


RECORD = Operator(
    name="cos",
    family="wave",
    formula="cos x, x in radians, from a table of one quarter wave",
    spiking=cos,
    integers=integers,
    exact=torch.cos,
    inputs=("angle",),
    scale="step",
    elementwise=True,
    grid="turn",
    bound=bound,
    input_range=input_range,
    spellings=elementwise("cos"),
    aten=("cos",),
)
