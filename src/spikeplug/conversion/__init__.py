"""Turning a Hugging Face model into a spiking one, back again, and looking at what it still computes in floats."""

from spikeplug.conversion.auditing import Audit, AuditEntry, audit
from spikeplug.conversion.report import Entry, Report
from spikeplug.conversion.swap import convert, revert

__all__ = ["Audit", "AuditEntry", "Entry", "Report", "audit", "convert", "revert"]
