"""Compute cosine and sine."""
