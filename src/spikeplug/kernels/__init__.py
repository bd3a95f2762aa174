"""Run the operators fast, bit for bit as the closed forms do, by device. See README.md beside this file."""

from spikeplug.kernels.protocol import Call, Kernel
from spikeplug.kernels.registry import DEVICES, closed_forms, enabled, explain, loaded

__all__ = ["DEVICES", "Call", "Kernel", "closed_forms", "enabled", "explain", "loaded"]
