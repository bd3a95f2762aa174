"""Fast forms of the operators, equal to the closed ones bit for bit, by device. See README.md beside this file."""

from spikeplug.kernels.registry import DEVICES, closed_forms, enabled, find, loaded, supports

__all__ = ["DEVICES", "closed_forms", "enabled", "find", "loaded", "supports"]
