"""Products and sums by gating. See README.md beside this file."""

from spikeplug.primitives.product.closed import accumulate, dot, gate

__all__ = ["accumulate", "dot", "gate"]
