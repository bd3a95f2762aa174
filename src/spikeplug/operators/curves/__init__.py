"""Activations besides the gates, all of t = exp(-|x|) <= 1: tanh, softplus, mish, relu_squared."""
