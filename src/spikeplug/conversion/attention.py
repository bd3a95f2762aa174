"""Register attention with transformers under the name "spiking": an attention function and its mask function.

An attention module has an `AttentionPlug` as a plain attribute, which says what it runs.
So one process may hold models with different numerics, and a model may keep some layers exact.

Not supported, each with a SpikeplugError: sparse indices, continuous batching.
With `output_attentions=True` the probabilities are computed once more, each divided on its own.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from spikeplug import functional
from spikeplug.codes import is_packed
from spikeplug.conversion.calls import EAGER_ATTENTION
from spikeplug.conversion.multi_head import attend, weighed
from spikeplug.errors import SpikeplugError
from spikeplug.hadamard import factors_of
from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics
from spikeplug.operators.attention.attention_weights import exact
from spikeplug.operators.attention.call import visible_keys
from spikeplug.operators.linear.levels import MOST_LEVELS, half_places

IMPLEMENTATION = "spiking"
PLUG = "spikeplug_attention"
#: What to do about a model that was made from the config of a converted one.
NOT_CONVERTED = (
    'make or load the model by from_config or from_pretrained with attn_implementation="sdpa" (or "eager"), then call '
    "spikeplug.convert on it."
)
#: Widths of heads that a Hadamard matrix rotates. (torch.compile cannot call a cached function.)
_ROTATIONS = frozenset(width for width in range(2, 1025) if factors_of(width))
# Attribute of a mask: the arguments it was made from, so that an excluded layer can make its own.
_MADE_FROM = "made_from"
# sdpa gets the mask None where `is_causal` says the same. This attribute marks the mask that replaces such a None.
_IMPLIED = "implied_by_is_causal"
# Configs, by identity, of models that ran sdpa before they were converted: such models expect that None.
_RAN_SDPA: WeakValueDictionary[int, Any] = WeakValueDictionary()


@dataclass(frozen=True)
class AttentionPlug:
    """Say what one attention module runs: the spiking operator or, if `numerics` is None, what it ran before.

    levels   levels of the codes of keys and values; 0: as many as the operator takes
    neurons  what query, key, value and probability become first, by these names: in recipes of other pipelines
    """

    numerics: Numerics | None
    original: str
    levels: int = 0
    neurons: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict, hash=False)


def remember_implementation(config: Any, implementation: str) -> None:
    """Record whether a model with this config ran sdpa before it was converted; `spiking_mask` reads it.

    config          config object of the model; it is recognised by identity, and not kept alive
    implementation  the attn_implementation that it had; any but "sdpa" removes the record
    """
    _RAN_SDPA.pop(id(config), None)
    if implementation == "sdpa":
        _RAN_SDPA[id(config)] = config


def _ran_sdpa(config: Any) -> bool:
    return config is not None and _RAN_SDPA.get(id(config)) is config


def check_implementation(module: nn.Module) -> None:
    """Check that the attn_implementation in the config of a converted attention module is still "spiking".

    transformers sets "eager" itself where it wants the attention weights. Spiking attention gives them, too, so "eager"
    is set back to "spiking", with a UserWarning. A module that was not converted is not checked.
    Errors: SpikeplugError if it was changed to anything else.
    """
    if PLUG not in vars(module):
        return
    config: Any = module.config
    if config._attn_implementation == IMPLEMENTATION:
        return
    if config._attn_implementation != "eager":
        raise SpikeplugError(
            f"attn_implementation was set to {config._attn_implementation!r} on a converted model: "
            f'call spikeplug.revert(model) first, or set it back to "{IMPLEMENTATION}".'
        )
    config._attn_implementation_internal = IMPLEMENTATION
    warnings.warn(
        f'attn_implementation was set to "eager" on a converted model, and is "{IMPLEMENTATION}" again, which gives '
        "attention weights as well: call spikeplug.revert(model) for exact attention.",
        UserWarning,
        stacklevel=2,
    )


def own_function(implementation: str) -> str:
    """Return `implementation` if a third party registered an attention function by that name, else an empty string.

    Functions of transformers ("sdpa") and of spikeplug itself ("spiking") give an empty string.
    """
    function = ALL_ATTENTION_FUNCTIONS.get(implementation)
    library = str(getattr(function, "__module__", "")).partition(".")[0]
    return "" if function is None or library in ("transformers", "spikeplug") else implementation


def spiking_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return what an attention function of transformers returns: output (B, Q, H, D), weights (B, H, Q, K) or None.

    module          the attention module that calls; its `AttentionPlug` says what to run
    query           (B, H, Q, D): batch, heads, queries, features of a head
    key, value      (B, Hkv, K, D): Hkv key heads, not repeated to H; K keys
    attention_mask  broadcastable to (B, H, Q, K): bool (True = may attend) or a float to add to the scores;
                    None: causal if `is_causal` (or, where that is None, the module's own attribute) says so
    kwargs          position_bias is added to the scores; s_aux or sinks: one logit per head, of a key without value;
                    softcap caps the scores; output_attentions=True asks for the weights

    Errors: SpikeplugError if the module was not converted, and for sparse indices and continuous batching.
    """
    plug: AttentionPlug | None = getattr(module, PLUG, None)
    if plug is None:
        raise SpikeplugError(
            f'{type(module).__name__} has attn_implementation "{IMPLEMENTATION}" but was not converted: {NOT_CONVERTED}'
        )
    if plug.neurons:
        given = {"query": query, "key": key, "value": value}
        query, key, value = (plug.neurons[name](x) if name in plug.neurons else x for name, x in given.items())
    if plug.numerics is None and "probability" not in plug.neurons:
        kwargs |= {"dropout": dropout, "scaling": scaling, "is_causal": is_causal}
        return _original_attention(plug, module, query, key, value, attention_mask, kwargs)
    for name in ("cache", "indices", "block_indices"):
        if kwargs.get(name) is not None:
            raise SpikeplugError(f"spiking attention does not take {name!r}: revert the model for this call.")
    how: dict[str, Any] = {
        "scaling": scaling,
        "softcap": kwargs.get("softcap"),
        "sinks": kwargs.get("s_aux", kwargs.get("sinks")),
    }
    mask = _mask(attention_mask, kwargs.get("position_bias"), module, query, key, is_causal)
    # From the call's argument, or from the config, which transformers does not pass on.
    shown = kwargs.get("output_attentions", getattr(getattr(module, "config", None), "output_attentions", False))
    if (coded := plug.neurons.get("probability")) is not None:
        probabilities = coded(_weights(query, key, mask, plug.numerics, **how))
        output = weighed(probabilities, value, dropout)
        return output.transpose(1, 2).contiguous(), probabilities if shown else None
    how["numerics"] = plug.numerics
    if plug.levels:
        query, how["scaling"] = _rotated(query, scaling, plug)
        if not is_packed(key):  # else it was encoded when it entered the cache
            key, value = encoded(key, value, plug)
    elif is_packed(key):
        raise SpikeplugError(
            f"{type(module).__name__} got a cache of a whole spiking model, which holds keys and values in bytes: "
            "begin with a new cache."
        )
    output = attend(query, key, value, mask, dropout, **how)
    weights = functional.attention_weights(query, key, mask, **how) if shown else None
    return output.transpose(1, 2).contiguous(), weights


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, numerics: Numerics | None, **how: Any) -> Tensor:
    """Return the probabilities of attention, (B, H, Q, K), by the spiking operator; of numerics None, in float."""
    if numerics is not None:
        return functional.attention_weights(query, key, mask, numerics=numerics, **how)
    return exact(query.float(), key.float(), mask, **how).to(query.dtype)


def _rotated(query: Tensor, scaling: float | None, plug: AttentionPlug) -> tuple[Tensor, float]:
    """Return queries in the basis of encoded keys, and the scaling of their scores.

    Queries and keys are rotated where their width is the order of a Hadamard matrix: no score changes, and the few
    large channels of keys do not set the step for the others.
    """
    width = query.shape[-1]
    scaling = width**-0.5 if scaling is None else scaling
    if width not in _ROTATIONS:
        return query, scaling
    query = OPERATORS["quantise"](query, MOST_LEVELS, 0, width, False, numerics=plug.numerics, part="query")
    return query, scaling * 4 ** half_places(width) / width


def encoded(key: Tensor, value: Tensor, plug: AttentionPlug, packed: bool = False) -> tuple[Tensor, Tensor]:
    """Return keys, rotated as `_rotated` rotates queries, and values in plug.levels levels; in bytes if `packed`."""
    encode, width = partial(OPERATORS["quantise"], numerics=plug.numerics), key.shape[-1]
    order = width if width in _ROTATIONS else 0
    key = encode(key, plug.levels, 0, order, packed, part="key")
    return key, encode(value, plug.levels, 0, 0, packed, part="value")


def spiking_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """Return the mask that transformers' `sdpa_mask` makes from the same arguments: bool (True = may attend), or None.

    `sdpa_mask` returns None where sdpa's argument `is_causal` says the same. Only models that ran sdpa before the
    conversion get that None. Any other model gets the mask itself.
    """
    mask: Tensor | None = sdpa_mask(*args, **kwargs)
    made_from = (args, dict(kwargs))
    # (torch.compile cannot read a WeakValueDictionary.)
    if mask is None and (torch.compiler.is_compiling() or not _ran_sdpa(kwargs.get("config"))):
        kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        mask = sdpa_mask(*args, **kwargs)
        setattr(mask, _IMPLIED, True)
    if mask is not None:
        setattr(mask, _MADE_FROM, made_from)
    return mask


def _mask(
    mask: Tensor | None, bias: Tensor | None, module: nn.Module, query: Tensor, key: Tensor, is_causal: bool | None
) -> Tensor | None:
    """Merge mask, position bias and causality into the one mask that the spiking attention operator takes.

    mask       the call's attention mask, or None: then a causal one is made if the module is causal
    bias       float position bias, added to the scores, or None
    query      (B, H, Q, D)
    key        (B, Hkv, K, D)
    is_causal  None: the module's own attribute decides

    Returns a bool mask (True = may attend), the number of visible keys per query, a float to add, or None.
    """
    if mask is None:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        if causal and (queries := query.shape[2]) > 1:
            # Upper-left aligned, as in sdpa: keys beyond the queries are the unused end of a static cache.
            mask = torch.arange(1, queries + 1, device=query.device).view(1, 1, queries, 1)
    if bias is None or mask is None:
        return mask if bias is None else bias
    mask = visible_keys(mask, key.shape[2])
    if mask.dtype == torch.bool:
        return bias.masked_fill(~mask, -torch.inf)
    return bias + mask


def _original_attention(
    plug: AttentionPlug,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    kwargs: dict[str, Any],
) -> tuple[Tensor, Tensor | None]:
    """Run the attention function that an excluded layer ran before the conversion, with the mask it got before.

    plug    its `original` names the function: the model's own eager attention, sdpa, or one that is registered
    mask    the mask that `spiking_mask` made; it is made again in the form that the function expects
    kwargs  all other arguments of the call

    Returns the function's own result: the output, and the weights or None.
    """
    if plug.original not in ("eager", "sdpa") and plug.original in ALL_ATTENTION_FUNCTIONS:
        if (made_from := getattr(mask, _MADE_FROM, None)) is not None:
            make: Any = AttentionMaskInterface._global_mapping.get(plug.original)
            mask = None if make is None else make(*made_from[0], **made_from[1])  # without one, transformers gives None
        run: Any = ALL_ATTENTION_FUNCTIONS[plug.original]
        result: tuple[Tensor, Tensor | None] = run(module, query, key, value, mask, **kwargs)
        return result
    # Eager attention is not a registered function: each model file has its own.
    eager = inspect.unwrap(type(module).forward).__globals__.get(EAGER_ATTENTION)
    if plug.original == "eager" and eager is not None:
        if mask is not None and mask.dtype == torch.bool:
            zero = torch.zeros((), device=mask.device, dtype=query.dtype)
            mask = torch.where(mask, zero, torch.finfo(query.dtype).min)
        output, weights = eager(module, query, key, value, mask, **kwargs)
        return output, weights
    if getattr(mask, _IMPLIED, False):
        mask = None
    return sdpa_attention_forward(module, query, key, value, mask, **kwargs)


AttentionInterface.register(IMPLEMENTATION, spiking_attention)
AttentionMaskInterface.register(IMPLEMENTATION, spiking_mask)
