"""Compute attention, or its weights, from queries, keys, values and masks."""
