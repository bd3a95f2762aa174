"""Attention: queries, keys, values and masks in; weighted values, or the weights, out."""
