"""Compute the activations that are not gates, all from t = exp(-|x|) <= 1: tanh, softplus, mish, relu_squared."""
