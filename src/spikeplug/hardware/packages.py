"""Import the packages that hardware needs and spikeplug does not: each is named with the command that installs it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from spikeplug.errors import SpikeplugError


def package(name: str, install: str | None = None) -> ModuleType:
    """Return the module of that name. Errors: SpikeplugError with the command that installs it, `pip install name`."""
    try:
        return import_module(name)
    except ImportError as error:
        command = install or f"pip install {name}"
        raise SpikeplugError(f"{name} cannot be imported ({error}): install it with `{command}`.") from None
