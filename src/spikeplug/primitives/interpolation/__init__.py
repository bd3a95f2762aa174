"""Compute a function of one variable by table and chords. See README.md in this folder."""

from spikeplug.primitives.interpolation.closed import interpolate, knots_of, whole_table
from spikeplug.primitives.interpolation.spec import Interpolation

__all__ = ["Interpolation", "interpolate", "knots_of", "whole_table"]
