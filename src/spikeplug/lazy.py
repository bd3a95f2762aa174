"""Import the names of a package when they are first used, so that a command line starts without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def names_of(package: str, files: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose public names lie in the given files: file -> names.

    The files themselves are found too.
    Errors: AttributeError for a name that no file has.
    """

    def find(name: str) -> Any:
        if name in files:
            return import_module(f"{package}.{name}")
        for file, names in files.items():
            if name in names:
                return getattr(import_module(f"{package}.{file}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
