"""Define SpikeplugError, the one exception that users see, and how it shows a value."""

from __future__ import annotations

import reprlib


class SpikeplugError(ValueError):
    """Report bad input to a public function: one sentence that says what is wrong and what to do about it."""


def shown(value: object) -> str:
    """Return the repr of a value of unknown origin: one short line, however long or deep the value is."""
    return _SHORT.repr(value).replace("\n", " ")


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 3
