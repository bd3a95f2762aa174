"""Pass a cache of keys and values to a model, and read it from an output, under the name that the model uses.

transformers 5.24 renamed `past_key_values` to `cache`; a model's own code may use either.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

_NAME, _FORMER_NAME = "cache", "past_key_values"


def with_cache(model: nn.Module, cache: Any) -> dict[str, Any]:
    """Return keyword arguments for calling `model` with a cache of earlier keys and values; cache None: start empty."""
    parameters = inspect.signature(type(model).forward).parameters
    return {_NAME if _NAME in parameters else _FORMER_NAME: cache, "use_cache": True}


def cache_of(output: Any) -> Any:
    """Return the cache of keys and values from the output of a model called with use_cache=True."""
    return output[_NAME] if _NAME in output else output[_FORMER_NAME]
