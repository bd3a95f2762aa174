"""Lay out the words of attention's kernel, and find a row in the tensors that they point at."""

from __future__ import annotations

from typing import Any, NamedTuple

from spikeplug.kernels.cpu.attention_codes import PANELS
from spikeplug.kernels.cpu.memory import places_of
from spikeplug.kernels.cpu.verbs import inlined


class Numbers(NamedTuple):
    """The words that depend on the numerics alone; they follow those of `Panels`.

    fraction_bits, bits, working_bits, query_bits  F, n, P, and the bits of a query's code
    table  address of the mantissas of 2^-f, int32
    """

    fraction_bits: Any
    bits: Any
    working_bits: Any
    query_bits: Any
    table: Any


class Words(NamedTuple):
    """The words of the kernel. A unit of work: ROWS rows of a key head's groups·queries. Strides are in elements.

    heads, groups   key heads, and query heads per key head
    queries, keys, channels, width  rows and keys of a head, channels of a query and of a value
    query           address of float32 (batches, heads·groups, queries, channels), its strides by batch, head and row
    output          address of float32 (batches, queries, heads·groups, width), contiguous
    factor          of the scores, a double
    sinks           address of float32 (heads·groups), or 0
    mask            address of bytes (..., keys), 0 hides, or 0; its strides by batch, head and row
    bias            address of float32 (..., keys), or 0; its strides by batch, head and row

    There is one mark per batch.
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
    """Return the query head of a key head's row `index`, among those of its batch."""
    return key_head % block[AT.heads] * block[AT.groups] + index // block[AT.queries]


@inlined
def place_of(block, key_head, index, by_batch, by_head, by_row):
    """Return how many elements a key head's row `index` lies after a tensor's start, by the tensor's strides."""
    batch, head = key_head // block[AT.heads], head_of(block, key_head, index)
    return batch * by_batch + head * by_head + index % block[AT.queries] * by_row


@inlined
def query_at(block, key_head, index):
    """Return the address of the query of a key head's row `index`."""
    by_batch, by_head, by_row = block[AT.query_batch], block[AT.query_head], block[AT.query_row]
    return block[AT.query] + 4 * place_of(block, key_head, index, by_batch, by_head, by_row)


@inlined
def mask_at(block, key_head, index):
    """Return the address of the mask of a key head's row `index`."""
    by_batch, by_head, by_row = block[AT.mask_batch], block[AT.mask_head], block[AT.mask_row]
    return block[AT.mask] + place_of(block, key_head, index, by_batch, by_head, by_row)


@inlined
def bias_at(block, key_head, index):
    """Return the address of the bias of a key head's row `index`."""
    by_batch, by_head, by_row = block[AT.bias_batch], block[AT.bias_head], block[AT.bias_row]
    return block[AT.bias] + 4 * place_of(block, key_head, index, by_batch, by_head, by_row)


@inlined
def token_of(block, key_head, index):
    """Return where a key head's row `index` lies among (batches, queries, heads)."""
    heads, head = block[AT.heads] * block[AT.groups], head_of(block, key_head, index)
    return (key_head // block[AT.heads] * block[AT.queries] + index % block[AT.queries]) * heads + head
