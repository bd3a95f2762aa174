"""Compute RMSNorm, LayerNorm and the norm of a vector."""
