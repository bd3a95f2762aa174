"""What a kernel is given: a block of 64-bit words at an address, and arrays at the addresses in it."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types

from spikeplug.kernels.cpu.verbs import inlined, intrinsic

#: Words of a block, at most: none past its last is ever read. Before a kernel's own: rows, rows that a thread takes at
#: once, the counter they are taken from, how many were done, and how many left to the closed form.
WORDS = 48
COUNT, STEP, TAKEN, DONE, LEFT = range(5)
#: The first of a kernel's own words.
OWN = 5

_carray: Any = numba.carray  # type: ignore[attr-defined]


@intrinsic
def _fetch_add(typing_context: Any, block: Any, place: Any, amount: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        return builder.atomic_rmw("add", pointer, arguments[2], "monotonic")

    return types.int64(block, types.int64, types.int64), generate


def _pointer(kind: Any) -> Any:
    """An address as a pointer to `kind`."""

    @intrinsic
    def verb(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return verb


_float32, _float64 = _pointer(types.float32), _pointer(types.float64)
_int32, _int16, _bool = _pointer(types.int32), _pointer(types.int16), _pointer(types.uint8)
_int64 = _pointer(types.int64)


@inlined
def floats(address, rows, width):
    """float32 (rows, width) at an address."""
    return _carray(_float32(address), (rows, width))


@inlined
def doubles(address, rows, width):
    """float64 (rows, width) at an address."""
    return _carray(_float64(address), (rows, width))


@inlined
def integers(address, rows, width):
    """int32 (rows, width) at an address; a float32's bits."""
    return _carray(_int32(address), (rows, width))


@inlined
def halves(address, rows, width):
    """int16 (rows, width) at an address."""
    return _carray(_int16(address), (rows, width))


@inlined
def truths(address, rows, width):
    """bool (rows, width) at an address, as uint8."""
    return _carray(_bool(address), (rows, width))


@inlined
def longs(address, count):
    """int64 (count) at an address, aligned or not."""
    return _carray(_int64(address), (count,))


@inlined
def words(address):
    """A block as int64."""
    return _carray(address, (WORDS,), np.int64)


@inlined
def reals(block):
    """A block's words as doubles."""
    return block.view(np.float64)


@inlined
def next_rows(block, done):
    """(first, last): the rows that this thread takes next, after it has done so many; none if first >= last."""
    _fetch_add(block, DONE, done)
    first = _fetch_add(block, TAKEN, block[STEP])
    return first, min(first + block[STEP], block[COUNT])


@inlined
def leave(block):
    """Count a row that is left to the closed form."""
    _fetch_add(block, LEFT, 1)
