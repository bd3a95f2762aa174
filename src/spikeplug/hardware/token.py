"""Count the events of one token of a language model, the tokens before it in a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikeplug.conversion import count
from spikeplug.english import english_text
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.caching import cache_of, with_cache
from spikeplug.measurement.text import check_context, cut_windows, encode
from spikeplug.realisation import Realisation

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from spikeplug.conversion.simulation import Simulation


def count_token(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    realisation: Realisation | None = None,
) -> Simulation:
    """Return the predicted events of the last of `context` tokens of the embedded English text.

    Errors: SpikeplugError if the model reads fewer tokens, and as of `read_before`.
    """
    check_context(model, context)
    return count_last(model, cut_windows(encode(tokenizer, english_text()), context, context), realisation)


@torch.inference_mode()
def count_last(model: PreTrainedModel, ids: Tensor, realisation: Realisation | None = None) -> Simulation:
    """Return the predicted events of the last of the tokens (1, n), those before it in a cache.

    Errors: SpikeplugError as of `read_before`.
    """
    cache = read_before(model, ids)
    with count(model, realisation) as counted:
        model(input_ids=ids[:, -1:], **with_cache(model, cache))
    return counted


def read_before(model: PreTrainedModel, ids: Tensor) -> Any:
    """Return the cache of a model that has read all but the last of the tokens (1, n); None for a single token.

    Errors: SpikeplugError for a model that keeps no keys and values.
    """
    if ids.shape[1] == 1:
        return None
    output = model(input_ids=ids[:, :-1], **with_cache(model, None))
    try:
        cache = cache_of(output)
    except KeyError:
        cache = None
    if cache is None:
        raise SpikeplugError(
            f"{type(model).__name__} keeps no keys and values of earlier tokens, so one token cannot be counted after "
            "others: give --context 1."
        )
    return cache
