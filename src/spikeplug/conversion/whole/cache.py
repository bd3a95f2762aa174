"""Keep keys and values in a cache as they are sent: in bytes, encoded once, when they enter it.

A model's own code calls `cache.update(key, value, layer)` and hands what it gets to spiking attention. The plug of an
attention module shows that code the cache with another `update`, which encodes first. So the caller's cache holds
int8 rows (`codes.pack`), and everything that moves rows in it (crop, beam search, a sliding window) works as ever.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer, EncoderDecoderCache

from spikeplug.codes import MOST_PACKED, is_packed
from spikeplug.conversion.attention import PLUG, AttentionPlug, encoded
from spikeplug.conversion.plug import HostPlug
from spikeplug.errors import SpikeplugError
from spikeplug.library.dispatch import is_substituted

#: Layers of caches that only move rows. Others quantise, or allocate for the dtype they were compiled with.
_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)
#: What a module's code calls transformers' table of attention functions.
_TABLE = "ALL_ATTENTION_FUNCTIONS"


class CachingPlug(HostPlug):
    """Run an attention module's own code with caches that encode keys and values when they enter.

    A compiled graph keeps numbers in the cache that it begins with: torch.compile does not follow a cache's class. So
    does who gives other results in the encoder's place.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        attention: AttentionPlug | None = getattr(self.module, PLUG, None)
        if self.detached or attention is None or not 1 <= attention.levels <= MOST_PACKED:
            return self.original(*args, **kwargs)
        if torch.compiler.is_compiling() or is_substituted():
            return self.original(*args, **kwargs)
        args = tuple([encoding(x, attention) if isinstance(x, Cache) else x for x in args])
        kwargs = {name: encoding(x, attention) if isinstance(x, Cache) else x for name, x in kwargs.items()}
        return self.original(*args, **kwargs)


def encoding(cache: Cache, attention: AttentionPlug) -> Cache:
    """Return the same cache, its attributes and all, whose `update` encodes keys and values first."""
    if isinstance(cache, EncoderDecoderCache):
        again: Any = copy.copy(cache)  # shares what it holds, also which cross-attentions are filled
        again.self_attention_cache = encoding(cache.self_attention_cache, attention)
        again.cross_attention_cache = encoding(cache.cross_attention_cache, attention)
        return again  # type: ignore[no-any-return]
    kind: Any = type(cache)
    shared: Cache = object.__new__(_encoding_class(kind, attention))
    shared.__dict__ = cache.__dict__
    return shared


@lru_cache(maxsize=64)
def _encoding_class(kind: type[Cache], attention: AttentionPlug) -> type[Cache]:
    def update(self: Any, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        if _takes_bytes(self, layer_idx, key, value):
            key, value = encoded(key, value, attention, packed=True)
        return kind.update(self, key, value, layer_idx, *args, **kwargs)

    return type(f"Encoding{kind.__name__}", (kind,), {"update": update})


def _takes_bytes(cache: Cache, layer: int, key: Tensor, value: Tensor) -> bool:
    """Return whether a layer of a cache is to hold bytes: it does, or it is empty and nothing needs a gradient.

    Errors: SpikeplugError if it holds bytes and gradients are needed.
    """
    if is_packed(key):  # somebody encodes around this already
        return False
    graded = torch.is_grad_enabled() and (key.requires_grad or value.requires_grad)
    made: Any = cache.layers[layer] if layer < len(cache.layers) else None
    if (cache.layer_class_to_replicate if made is None else type(made)) not in _LAYERS:
        return False
    held = None if made is None else made.keys
    if held is None or held.numel() == 0:
        return not graded and key.dtype in (torch.float32, torch.float64)
    if is_packed(held) and graded:
        raise SpikeplugError(
            "this cache holds keys and values in bytes, which have no gradient: run under torch.no_grad(), or begin "
            "with a new cache."
        )
    return is_packed(held)


def packs(module: nn.Module) -> bool:
    """Return whether an attention module's cache may hold bytes: its code hands what `update` returns to attention."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(type(module).forward)))
    except (OSError, TypeError, SyntaxError):  # no source at hand
        return False
    return _only_attends(tree)


def _only_attends(tree: ast.AST) -> bool:
    """Return whether names that hold what `cache.update` returned go nowhere but to a function of transformers' table.

    Names hold it from the line of the update on.
    """
    functions = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and _mentions(node.value, _TABLE)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    updates = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and _is_update(node.value)]
    every = sum(_is_update(node) for node in ast.walk(tree))
    targets = [part for node in updates for target in node.targets for part in ast.walk(target)]
    names = {part.id for part in targets if isinstance(part, ast.Name)}
    if not updates or every != len(updates):
        return False
    first = min(node.end_lineno or node.lineno for node in updates)
    attended = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions
        for argument in node.args
    }
    later = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names and node.lineno > first
    ]
    return bool(later) and all(id(node) in attended for node in later)


def _is_update(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update"


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))
