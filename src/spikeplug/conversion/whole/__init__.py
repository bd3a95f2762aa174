"""Make a whole model spike: every tensor between the token ids and the logits is a spike code."""
