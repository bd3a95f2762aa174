"""Lay out what a kernel is given: a block of 64-bit words at an address, and arrays at the addresses in it.

A layout is a NamedTuple of words, and the only place where their order is written. The host fills one by
name, `Words(x=..., width=...)`. A kernel finds each word at its place in the block: `block[AT.table]` with
`AT = places_of(Words)`.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba import types
from torch import Tensor

from spikeplug.kernels.cpu.verbs import inlined, intrinsic

Layout = TypeVar("Layout", bound=tuple[Any, ...])

#: Words of a block at most. No kernel reads a word past its last.
WORDS = 48


class Header(NamedTuple):
    """Hold the 64-bit words that every block, the input of a kernel, begins with.

    count  rows (units of work)
    step   rows that a thread takes at once
    taken  the counter that rows are taken from
    done   rows done so far
    left   rows left to the closed form so far
    marks  address of bytes, one per row or batch: 1 where it is left to the closed form
    """

    count: Any
    step: Any
    taken: Any
    done: Any
    left: Any
    marks: Any


def places_of(layout: type[Layout], after: tuple[int, ...] = ()) -> Layout:
    """Return the layout filled with the indices of its words in a block: 0, 1, ..., or those that follow `after`.

    layout: a NamedTuple class that names the words. after: the indices of the layout before it in the block.
    """
    first = after[-1] + 1 if after else 0
    return layout(*range(first, first + len(layout._fields)))  # type: ignore[attr-defined]


def as_words(values: tuple[Any, ...]) -> tuple[int, ...]:
    """Convert a layout's values to 64-bit words: a tensor to its address, a double to its bits, an integer as it is.

    The tensors must be kept alive as long as the words are used.
    """
    return tuple([value if type(value) is int else _word(value) for value in values])


def _word(value: Tensor | float) -> int:
    return _INTEGER.unpack(_DOUBLE.pack(value))[0] if isinstance(value, float) else value.data_ptr()


_INTEGER, _DOUBLE = struct.Struct("q"), struct.Struct("d")
HEADER = places_of(Header)

_carray: Any = numba.carray  # type: ignore[attr-defined]


def _adding(ordering: str) -> Any:
    """Return a function, for use in kernels, that adds to a word of a block, and returns what it was before."""

    @intrinsic
    def verb(typing_context: Any, block: Any, place: Any, amount: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            pointer = builder.gep(array.data, [arguments[1]])
            return builder.atomic_rmw("add", pointer, arguments[2], ordering)

        return types.int64(block, types.int64, types.int64), generate

    return verb


_fetch_add, _fetch_add_fenced = _adding("monotonic"), _adding("acq_rel")


def _pointer(kind: Any) -> Any:
    """Return a function, for use in kernels, that converts an int64 address to a pointer to Numba type `kind`."""

    @intrinsic
    def verb(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return verb


_float32, _float64 = _pointer(types.float32), _pointer(types.float64)
_int32, _int16, _bool = _pointer(types.int32), _pointer(types.int16), _pointer(types.uint8)
_int64, _int8 = _pointer(types.int64), _pointer(types.int8)


@intrinsic
def borrowed(typing_context: Any, array: Any) -> Any:
    """Return a view of an array that Numba allocated, without a share in it; `keep` the array until the last use.

    Numba counts every slice of an array that it owns, atomically, twice: in a loop over rows of 64 elements that took a
    third of the time.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        for owner in ("meminfo", "parent"):
            setattr(view, owner, ir.Constant(getattr(view, owner).type, None))
        return view._getvalue()

    return array(array), generate


@intrinsic
def keep(typing_context: Any, array: Any) -> Any:
    """Keep an array alive up to here."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_dummy_value()

    return types.void(array), generate


@inlined
def floats(address, rows, width):
    """Return the memory at an address as a float32 array (rows, width), without a copy."""
    return _carray(_float32(address), (rows, width))


@inlined
def doubles(address, rows, width):
    """Return the memory at an address as a float64 array (rows, width), without a copy."""
    return _carray(_float64(address), (rows, width))


@inlined
def integers(address, rows, width):
    """Return the memory at an address as an int32 array (rows, width), without a copy; it may hold float32."""
    return _carray(_int32(address), (rows, width))


@inlined
def halves(address, rows, width):
    """Return the memory at an address as an int16 array (rows, width), without a copy."""
    return _carray(_int16(address), (rows, width))


@inlined
def truths(address, rows, width):
    """Return the bools at an address as a uint8 array (rows, width), without a copy."""
    return _carray(_bool(address), (rows, width))


@inlined
def longs(address, count):
    """Return the memory at an address, aligned or not, as an int64 array (count,), without a copy."""
    return _carray(_int64(address), (count,))


@inlined
def words(address):
    """Return the block of 64-bit words at an address, a kernel's input, as an int64 array (WORDS,)."""
    return _carray(address, (WORDS,), np.int64)


@inlined
def reals(block):
    """Return the same memory as the int64 array `block` as float64, to read the words that hold doubles."""
    return block.view(np.float64)


@inlined
def next_rows(block, done):
    """Count `done` rows as finished and take the next ones for this thread; return (first, last).

    The thread's rows are first <= row < last; there are none left if first >= last. Safe across threads.
    """
    _fetch_add(block, HEADER.done, done)
    first = _fetch_add(block, HEADER.taken, block[HEADER.step])
    return first, min(first + block[HEADER.step], block[HEADER.count])


@inlined
def add_at(address, amount):
    """Add to the int64 at an address. Safe across threads."""
    _fetch_add(longs(address, 1), 0, amount)


@inlined
def leave(block, mark):
    """Set byte `mark` (the number of a row or batch) of the marks: the closed form will compute that row or batch."""
    truths(block[HEADER.marks], 1, mark + 1)[0, mark] = 1
    _fetch_add(block, HEADER.left, 1)


@inlined
def bytes_at(address, rows, width):
    """Return the memory at an address as an int8 array (rows, width), without a copy."""
    return _carray(_int8(address), (rows, width))


@inlined
def finished_rows(block, done):
    """Count `done` rows as finished; return whether all rows are. What the other threads wrote is visible then."""
    return _fetch_add_fenced(block, HEADER.done, done) + done == block[HEADER.count]


@inlined
def taken_rows(block):
    """Take the next rows for this thread, (first, last), and count none as finished; none are left if first >= last."""
    first = _fetch_add(block, HEADER.taken, block[HEADER.step])
    return first, min(first + block[HEADER.step], block[HEADER.count])
