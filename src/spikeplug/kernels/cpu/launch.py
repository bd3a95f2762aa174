"""Run kernels on the threads that torch itself works with.

A kernel is a C function of one address, at which 64-bit words lie (memory.py). It is run by the OpenMP team of
torch's own operators, where torch uses GNU's OpenMP: a second pool of threads would have to share the cores with a
first that is still spinning. Elsewhere it is run by a pool of Python threads (kernels hold no interpreter lock). No
result depends on how many threads there are: each row is one thread's.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from array import array
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikeplug.kernels.cpu.memory import HEADER

#: Elements that a thread takes at once: enough to hide the taking, few enough for all threads to end together.
_ELEMENTS = 1 << 14
#: Bytes of a word.
_WORD = 8
_DONE, _LEFT, _MARKS = HEADER.done, HEADER.left, HEADER.marks

_forked = False


def _after_fork() -> None:
    """Use one thread from here on: in a forked child GNU's OpenMP has no team, and would wait for it forever."""
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)


def launch(
    kernel: Any, rows: int, width: int, words: tuple[int, ...], *, marks: int, held: tuple[Any, ...]
) -> Tensor | None:
    """Run the kernel over `rows` units of work, about `width` elements each.

    words: the kernel's 64-bit inputs, which follow the header, in the order of its layout. marks: how many rows (or
    batches) the kernel may mark as left to the closed form. held: objects whose memory the words point at, kept alive.
    Returns the marks, bool (marks,), True where something was left; None if nothing was.
    Errors: MemoryError if a thread found no memory for its buffers.
    """
    step = _ELEMENTS // width if 0 < width <= _ELEMENTS else 1 if width else _ELEMENTS
    # Arrays are made, and give their addresses, in a third of the time of tensors or of ctypes. Few marks lie in the
    # block itself, after its words. The words of `Header` are written in their order: names take as long as an array.
    block = array("q", (rows, step, 0, 0, 0, 0, *words, 0))
    address = block.buffer_info()[0]
    if marks <= _WORD:
        left = block
        block[_MARKS] = address + _WORD * (len(block) - 1)
    else:
        left = array("b", bytes(marks))
        block[_MARKS] = left.buffer_info()[0]
    threads = 1 if rows <= step or _forked else min(torch.get_num_threads(), -(-rows // step))
    if threads <= 1:
        kernel.ctypes(address)
    elif (parallel := _openmp()) is not None:
        parallel(kernel.address, address, threads, 0)
    else:
        held = (block, left, *held)
        waiting = [_pool(threads - 1).submit(_run, kernel, address, held) for _ in range(threads - 1)]
        _run(kernel, address, held)
        for done in waiting:
            done.result()
    if block[_DONE] != rows:
        raise MemoryError("a spikeplug kernel found no memory for its buffers of one row per thread.")
    if not block[_LEFT]:
        return None
    offset = _WORD * (len(block) - 1) if left is block else 0
    return torch.frombuffer(left, dtype=torch.bool, count=marks, offset=offset)


#: From this size on, glibc gives every block its own mapping, which the system fills page by page when first used.
_MAPPED = 32 << 20
_MADV_HUGEPAGE = 14


def empty_like(x: Tensor) -> Tensor:
    """Return torch.empty_like(x) for a contiguous x, with large memory pages as `empty` has them."""
    return _on_large_pages(torch.empty_like(x))


def new_empty(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return x.new_empty(shape) of a dimension or more, on Linux with large memory pages (2 MiB) from 32 MiB on.

    With pages of 4 KiB the page faults would take longer than the kernel.
    """
    # Of torch's functions, these are the fastest: sizes in a tuple take half a microsecond more.
    return _on_large_pages(torch.empty_like(x) if x.shape == shape and x.is_contiguous() else x.new_empty(*shape))


def _on_large_pages(output: Tensor) -> Tensor:
    size = output.nbytes
    if size >= _MAPPED and (advise := _madvise()) is not None:
        first = -(-output.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        advise(first, (output.data_ptr() + size - first) // mmap.PAGESIZE * mmap.PAGESIZE, _MADV_HUGEPAGE)
    return output


@lru_cache
def _madvise() -> Any:
    """Return the C library's madvise(address, length, advice), or None on systems other than Linux."""
    if sys.platform != "linux":
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


def _run(kernel: Any, address: int, held: tuple[Any, ...]) -> None:
    """Run the kernel in this thread, on the block at `address`, until no rows are left to take.

    held: objects whose memory the block points at. They stay alive even if the thread that launched this one stops.
    """
    kernel.ctypes(address)


@lru_cache
def _openmp() -> Any:
    """Return GOMP_parallel(function, data, threads, flags) of the OpenMP library that torch has loaded.

    None if torch does not come with GNU's OpenMP library (libgomp).
    """
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
