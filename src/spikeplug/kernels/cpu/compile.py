"""Compile kernels when they are first run, for the machine they run on, and keep them on disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from numba import types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc

from spikeplug.kernels.cpu.verbs import OPTIONS
from spikeplug.kernels.cpu.wide import WideCompiler

_LOG = logging.getLogger("spikeplug.kernels")
_SIGNATURE = ((types.voidptr,), types.void)
_DIGEST = hashlib.sha256().digest_size
_lock = Lock()


@lru_cache
def state_of_sources() -> str:
    """Return a digest (12 hex digits) of the source files in codes, kernels, operators and primitives.

    It goes into a kernel's name: Numba keeps compiled code while the kernel's own file is unchanged, whatever that file
    imports.
    """
    package = Path(__file__).parents[2]
    rooms = ("codes", "kernels", "operators", "primitives")
    sources = sorted(path for room in rooms for path in (package / room).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


class Compiled:
    """Hold a kernel: a C function of one address, compiled when first used.

    Python calls it by `ctypes`, C code by `address`.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        function.__qualname__ += f"_{state_of_sources()}"
        self.__qualname__, self._function = function.__qualname__, function

    @cached_property
    def _code(self) -> Any:
        with _lock:  # of several threads, one compiles
            return self.__dict__.get("_code") or _compile(self._function)

    @cached_property
    def ctypes(self) -> Any:
        return self._code.ctypes

    @cached_property
    def address(self) -> int:
        return self._code.address  # type: ignore[no-any-return]


def kernel(function: Callable[..., None]) -> Compiled:
    """Decorate a function of one argument, the address of its block of words, as a kernel that compiles when used."""
    return Compiled(function)


def _compile(function: Callable[..., None]) -> Any:
    """Return the compiled function, from disk if it is there. Compiling is logged, at level INFO."""
    code: Any = CFunc(function, _SIGNATURE, {}, OPTIONS, pipeline_class=_Logged)
    with suppress(RuntimeError, OSError):  # no folder for it
        code._cache = _Cache(function)
    code.compile()
    return code


class _Logged(WideCompiler):
    """Log that a kernel is compiled, then compile it with Numba. Code that Numba finds on disk is not compiled."""

    def define_pipelines(self) -> Any:
        name = self.state.func_id.func.__name__.removesuffix("_kernel")
        _LOG.info("Compiling the %s kernel, the first time: some seconds.", name)
        return super().define_pipelines()


class _Cache(FunctionCache):
    """Numba's cache of one function, in files that are checked."""

    def __init__(self, function: Callable[..., None]) -> None:
        super().__init__(function)
        implementation = self._impl
        self._cache_file = _CheckedFiles(
            cache_path=self._cache_path,
            filename_base=implementation.filename_base,
            source_stamp=implementation.locator.get_source_stamp(),
        )


class _CheckedFiles(IndexDataCacheFile):
    """Numba's cache files, each followed by its digest: one that is cut short or damaged is compiled anew."""

    def load(self, key: Any) -> Any:
        """Return what was saved under `key`, or None if it is not there or damaged."""
        try:
            return super().load(key)
        except Exception as error:
            _LOG.warning("A file of compiled kernels in %s is damaged (%s): compiling again.", self._cache_path, error)
            with suppress(OSError):
                self.flush()
            return None

    def save(self, key: Any, data: Any) -> None:
        """Keep what was compiled, or do without: there may be no room, or no permission any more."""
        with suppress(OSError):
            super().save(key, data)

    def _dump(self, obj: Any) -> bytes:
        data: bytes = super()._dump(obj)
        return data + hashlib.sha256(data).digest()  # which pickle leaves unread

    def _load_data(self, name: str) -> Any:
        data = Path(self._data_path(name)).read_bytes()
        if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
            raise ValueError("its digest is another")
        return super()._load_data(name)
