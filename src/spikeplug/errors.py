"""The one exception users see."""


class SpikeplugError(ValueError):
    """Bad input at a public edge: one sentence that says what is wrong and what to do about it."""
