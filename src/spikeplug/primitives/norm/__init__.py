"""The L2 norm: squares and root, or the CORDIC tree. See README.md beside this file."""

from spikeplug.primitives.norm.closed import cordic, root, square_sum
from spikeplug.primitives.norm.spec import CordicSpec, RootSpec

__all__ = ["CordicSpec", "RootSpec", "cordic", "root", "square_sum"]
