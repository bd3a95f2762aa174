"""Compare integers by threshold neurons: the maximum, the leading one, a threshold. See README.md in this folder."""

from spikeplug.primitives.compare.closed import leading_one, maximum, reaches

__all__ = ["leading_one", "maximum", "reaches"]
