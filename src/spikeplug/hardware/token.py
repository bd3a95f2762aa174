"""Count the events of one token of a language model, the tokens before it in a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spikeplug.conversion import count
from spikeplug.english import english_text
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

    Errors: SpikeplugError if the model reads fewer tokens.
    """
    check_context(model, context)
    ids = cut_windows(encode(tokenizer, english_text()), context, context)
    with torch.inference_mode():
        cache = None
        if context > 1:
            cache = cache_of(model(input_ids=ids[:, :-1], **with_cache(model, None)))
        with count(model, realisation) as counted:
            model(input_ids=ids[:, -1:], **with_cache(model, cache))
    return counted
