"""Weights: fold norms, rotate, and round to integers, without changing what a model computes before rounding."""

from spikeplug.weights.hessian import Hessian
from spikeplug.weights.preparing import Prepared, PreparedNorm, Weights, check_finite, prepare
from spikeplug.weights.rotation import Rotation, rotate_online
from spikeplug.weights.rounding import Rounded, gptq, rounded, threshold_of
from spikeplug.weights.structure import Structure, find_structure

__all__ = [
    "Hessian",
    "Prepared",
    "PreparedNorm",
    "Rotation",
    "Rounded",
    "Structure",
    "Weights",
    "check_finite",
    "find_structure",
    "gptq",
    "prepare",
    "rotate_online",
    "rounded",
    "threshold_of",
]
