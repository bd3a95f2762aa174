"""Comparisons by threshold neurons: the largest of many, the leading one, a threshold. See README.md in this folder."""

from spikeplug.primitives.compare.closed import leading_one, maximum, reaches

__all__ = ["leading_one", "maximum", "reaches"]
