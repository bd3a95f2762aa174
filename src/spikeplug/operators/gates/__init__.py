"""Compute gated inputs, x·σ(g(x)): the sigmoid, SiLU and all forms of GELU."""
