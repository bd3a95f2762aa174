"""Hold the English text that measurements and calibrations read by default."""

from __future__ import annotations


def english_text() -> str:
    """Return the English text every CPython has: `pydoc_data.topics`, in the order of the keys, blank lines between."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))
