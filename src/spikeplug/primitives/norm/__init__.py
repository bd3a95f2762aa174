"""Compute the L2 norm by squares and root, or by the CORDIC tree. See README.md in this folder."""

from spikeplug.primitives.norm.closed import cordic, root, square_sum
from spikeplug.primitives.norm.spec import CordicSpec, RootSpec

__all__ = ["CordicSpec", "RootSpec", "cordic", "root", "square_sum"]
