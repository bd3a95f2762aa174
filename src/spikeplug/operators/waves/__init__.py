"""Cosine and sine."""
