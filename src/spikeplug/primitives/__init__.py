"""Populations of threshold neurons: division, exponential, norm, product. Each: spec, simulate, closed, README."""
