"""Compute softmax and log-softmax."""
