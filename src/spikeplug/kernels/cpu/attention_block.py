"""Lay out the words of attention's kernel, and find a row in the tensors that they point at."""

from __future__ import annotations

from typing import Any, NamedTuple

from spikeplug.kernels.cpu.attention_codes import PANELS
from spikeplug.kernels.cpu.memory import places_of
from spikeplug.kernels.cpu.verbs import inlined


class Numbers(NamedTuple):
    """Hold the 64-bit words of the kernel's input block that depend on `Numerics` alone. They follow those of `Panels`.

    fraction_bits, bits, working_bits  the fields of `Numerics` of the same names
    query_bits                         bits of a query's code
    table                              address of the mantissas of 2^-f for each fraction f of fraction_bits bits, int32
    """

    fraction_bits: Any
    bits: Any
    working_bits: Any
    query_bits: Any
    table: Any


class Words(NamedTuple):
    """Hold the 64-bit words of attention's kernel: sizes, addresses and strides, the strides in elements.

    One unit of work is ROWS of the groups·queries rows that use the same key head. There is one mark per batch.

    heads, groups   key heads, and query heads per key head
    queries, keys, channels, width  rows and keys of a head, channels of a query and of a value
    query           address of float32 (batches, heads·groups, queries, channels), its strides by batch, head and row
    output          address of float32 (batches, queries, heads·groups, width), contiguous
    factor          what products of queries and keys are multiplied by to be scores, a double
    sinks           address of float32 (heads·groups), or 0 if there are none
    mask            address of bytes (..., keys) where 0 hides a key, or 0 for no mask; its strides by batch, head, row
    bias            address of float32 (..., keys), or 0 for no bias; its strides by batch, head and row
    """

    heads: Any
    groups: Any
    queries: Any
    keys: Any
    channels: Any
    width: Any
    query: Any
    query_batch: Any
    query_head: Any
    query_row: Any
    output: Any
    factor: Any
    sinks: Any
    mask: Any
    mask_batch: Any
    mask_head: Any
    mask_row: Any
    bias: Any
    bias_batch: Any
    bias_head: Any
    bias_row: Any


NUMBERS = places_of(Numbers, after=PANELS)
AT = places_of(Words, after=NUMBERS)


@inlined
def head_of(block, key_head, index):
    """Return the number of the query head, within its batch, that row `index` belongs to.

    key_head: counts the key heads of all batches. index: counts the groups·queries rows that use this key head.
    """
    return key_head % block[AT.heads] * block[AT.groups] + index // block[AT.queries]


@inlined
def place_of(block, key_head, index, by_batch, by_head, by_row):
    """Return the offset of a row from a tensor's start, in elements.

    key_head: counts the key heads of all batches. index: counts the rows that use this key head. by_batch, by_head,
    by_row: the tensor's strides, in elements.
    """
    batch, head = key_head // block[AT.heads], head_of(block, key_head, index)
    return batch * by_batch + head * by_head + index % block[AT.queries] * by_row


@inlined
def query_at(block, key_head, index):
    """Return the address of the query vector of row `index` among the rows that use key head `key_head`."""
    by_batch, by_head, by_row = block[AT.query_batch], block[AT.query_head], block[AT.query_row]
    return block[AT.query] + 4 * place_of(block, key_head, index, by_batch, by_head, by_row)


@inlined
def mask_at(block, key_head, index):
    """Return the address of the mask bytes of row `index` among the rows that use key head `key_head`."""
    by_batch, by_head, by_row = block[AT.mask_batch], block[AT.mask_head], block[AT.mask_row]
    return block[AT.mask] + place_of(block, key_head, index, by_batch, by_head, by_row)


@inlined
def bias_at(block, key_head, index):
    """Return the address of the float32 bias of row `index` among the rows that use key head `key_head`."""
    by_batch, by_head, by_row = block[AT.bias_batch], block[AT.bias_head], block[AT.bias_row]
    return block[AT.bias] + 4 * place_of(block, key_head, index, by_batch, by_head, by_row)


@inlined
def token_of(block, key_head, index):
    """Return the flat index in an array (batches, queries, query heads) of row `index` of key head `key_head`."""
    heads, head = block[AT.heads] * block[AT.groups], head_of(block, key_head, index)
    return (key_head // block[AT.heads] * block[AT.queries] + index % block[AT.queries]) * heads + head
