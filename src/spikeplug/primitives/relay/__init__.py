"""Add, scale, gate, sign, shift, round and clamp integers by accumulators. See README.md in this folder."""

from spikeplug.primitives.relay.closed import add, clamp, magnitude, round_half, scale, select, shift, signed

__all__ = ["add", "clamp", "magnitude", "round_half", "scale", "select", "shift", "signed"]
