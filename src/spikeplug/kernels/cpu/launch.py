"""Kernels on the threads that torch itself works with.

A kernel is a C function of one address, at which 64-bit words lie (memory.py). It is run by the OpenMP team of
torch's own operators, where torch uses GNU's OpenMP: a second pool of threads would have to share the cores with a
first that is still spinning. Elsewhere by a pool of Python threads (the kernels hold no interpreter lock). No result
depends on how many threads there are: each row is one thread's.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import mmap
import os
import struct
import sys
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
import torch
from numba import types
from numba.core.compiler import Compiler
from torch import Tensor

from spikeplug.kernels.cpu.memory import DONE, LEFT
from spikeplug.kernels.cpu.verbs import OPTIONS

#: Elements a thread takes at once: enough to hide taking them, few enough for all threads to end together.
_ELEMENTS = 1 << 14

_LOG = logging.getLogger("spikeplug.kernels")
_INTEGER, _DOUBLE = struct.Struct("q"), struct.Struct("d")

_forked = False


def _after_fork() -> None:
    """GNU's OpenMP has no team in a forked child and would wait for it forever: one thread from here on."""
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)


@lru_cache
def _state() -> str:
    """Of all sources that can reach a kernel. Numba keeps a function's code while its own file is unchanged, whatever
    that file imports; so the state goes into the function's name."""
    package = Path(__file__).parents[2]
    sources = sorted(path for room in ("kernels", "operators", "primitives") for path in (package / room).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


class _Telling(Compiler):
    """Numba's compiler, that says so before it begins; what Numba finds on disk never comes here."""

    def define_pipelines(self) -> Any:
        name = self.state.func_id.func.__name__.removesuffix("_kernel")
        _LOG.info("Compiling the %s kernel, the first time: some seconds.", name)
        return super().define_pipelines()


def kernel(function: Callable[..., None]) -> Any:
    """Compile `function(block: address)`, and log that (INFO); kept on disk where that can be written."""
    signature = types.void(types.voidptr)
    function.__qualname__ += f"_{_state()}"
    try:
        return numba.cfunc(signature, cache=True, pipeline_class=_Telling, **OPTIONS)(function)
    except (RuntimeError, OSError):  # no folder for it, or no room in it
        return numba.cfunc(signature, pipeline_class=_Telling, **OPTIONS)(function)


def launch(kernel: Any, rows: int, width: int, *words: Tensor | int | float) -> int:
    """Run a kernel over `rows` rows of `width` elements; returns how many of them it left to the closed form.

    words: its own, in order: contiguous tensors on the CPU (their addresses), integers, and floats.
    """
    step = max(1, _ELEMENTS // max(1, width))
    # An array is made, and tells its address, in a third of the time of ctypes'.
    block = array("q", [rows, step, 0, 0, 0, *[word if type(word) is int else _word(word) for word in words]])
    address = block.buffer_info()[0]
    threads = 1 if _forked else min(torch.get_num_threads(), -(-rows // step))
    if threads <= 1:
        kernel.ctypes(address)
    elif (parallel := _openmp()) is not None:
        parallel(kernel.address, address, threads, 0)
    else:
        waiting = [_pool(threads - 1).submit(_run, kernel, block, words) for _ in range(threads - 1)]
        _run(kernel, block, words)
        for done in waiting:
            done.result()
    if block[DONE] != rows:
        raise MemoryError("a spikeplug kernel found no memory for its buffers of one row a thread.")
    return block[LEFT]


#: Of this size and more, glibc gives every block its own mapping, which the system fills page by page when first used.
_MAPPED = 32 << 20
_MADV_HUGEPAGE = 14


def empty_like(x: Tensor) -> Tensor:
    """torch.empty_like(x) of a contiguous x; a large one in pages of 2 MiB where Linux leaves that to the program:
    a fault for each of 4 KiB takes longer than the kernel."""
    output, size = torch.empty_like(x), x.nbytes
    if size >= _MAPPED and (advise := _madvise()) is not None:
        first = -(-output.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        advise(first, (output.data_ptr() + size - first) // mmap.PAGESIZE * mmap.PAGESIZE, _MADV_HUGEPAGE)
    return output


@lru_cache
def _madvise() -> Any:
    """madvise(address, length, advice) of the C library; None where there is none, or no large pages."""
    if sys.platform != "linux":
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


def _run(kernel: Any, block: Any, words: tuple[Tensor | int | float, ...]) -> None:
    """One thread's part; holds what the addresses point at, also when whoever launched it was interrupted."""
    kernel.ctypes(block.buffer_info()[0])


def _word(argument: Tensor | float) -> int:
    if isinstance(argument, float):
        return _INTEGER.unpack(_DOUBLE.pack(argument))[0]  # type: ignore[no-any-return]
    return argument.data_ptr()


@lru_cache
def _openmp() -> Any:
    """GOMP_parallel(function, data, threads, flags) of the OpenMP library that torch has loaded; None if it is another
    make."""
    for path in (Path(torch.__file__).parent / "lib").glob("libgomp*.so*"):
        try:
            function = ctypes.CDLL(str(path)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        function.restype = None
        return function
    return None


@lru_cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="spikeplug")
