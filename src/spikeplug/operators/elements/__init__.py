"""Compute functions of single elements, each with a power of two of its own: exp, log, roots, square, quotients."""
