"""Multiply and add integers by gating. See README.md in this folder."""

from spikeplug.primitives.product.closed import accumulate, dot, gate

__all__ = ["accumulate", "dot", "gate"]
