"""The linear operators of a whole spiking model: encoder, layer, sum, product and rotary angle."""
