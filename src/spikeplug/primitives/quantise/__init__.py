"""Quantise integers by the neurons of ANN-to-SNN pipelines. See README.md in this folder."""

from spikeplug.primitives.quantise.closed import quantise
from spikeplug.primitives.quantise.spec import QuantiseSpec, few_spikes, gif, phase, qcfs, st_bif

__all__ = ["QuantiseSpec", "few_spikes", "gif", "phase", "qcfs", "quantise", "st_bif"]
