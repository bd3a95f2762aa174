"""Compute integer functions by populations of threshold neurons. Each folder has spec, closed, simulate and README."""
