"""Define SpikeplugError, the one exception that users see."""


class SpikeplugError(ValueError):
    """Report bad input to a public function: one sentence that says what is wrong and what to do about it."""
