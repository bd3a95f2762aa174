"""Compute 2^-x by table and shift, and exp(x) by chords. See README.md in this folder."""

from spikeplug.primitives.exponential.closed import decay, mantissa, piecewise, power_of_half
from spikeplug.primitives.exponential.spec import PiecewiseExponential, ShiftExponential

__all__ = ["PiecewiseExponential", "ShiftExponential", "decay", "mantissa", "piecewise", "power_of_half"]
