"""Divide non-negative integers: floor(2^n · A / B). See README.md in this folder."""

from spikeplug.primitives.divide.closed import divide
from spikeplug.primitives.divide.simulate import ordered_group, restoring_neuron
from spikeplug.primitives.divide.spec import DivideSpec

__all__ = ["DivideSpec", "divide", "ordered_group", "restoring_neuron"]
