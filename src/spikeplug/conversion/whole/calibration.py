"""Make the inputs of a calibration run from token ids, a tokenizer's result, or the embedded text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from spikeplug.english import english_text
from spikeplug.errors import SpikeplugError

#: Tokens of the embedded text that calibrate by default.
TOKENS = 512
_REMEDY = 'give calibration=tokenizer(text, return_tensors="pt"), or calibration=False to round weights to nearest.'


def calibration_batch(model: nn.Module, calibration: Any) -> Mapping[str, Any] | None:
    """Return the keyword arguments of one run of the model, or None where weights are rounded to nearest.

    calibration  int64 token ids (tokens,) or (batch, tokens); the inputs by name; False; None: the end of the embedded
                 text, which no measurement reads, if the tokenizer lies where the model came from
    Errors: SpikeplugError for anything else, for ids beyond the vocabulary, and for no or non-finite inputs.
    """
    if calibration is False:
        return None
    if calibration is None:
        ids = _own_tokens(model)
        return None if ids is None else {"input_ids": ids}
    if isinstance(calibration, Tensor):
        if calibration.dtype != torch.int64 or calibration.dim() not in (1, 2):
            raise SpikeplugError(
                f"calibration is a {calibration.dtype} tensor of {calibration.dim()} dimensions: {_REMEDY}"
            )
        calibration = {"input_ids": torch.atleast_2d(calibration)}
    if not isinstance(calibration, Mapping) or not calibration:
        raise SpikeplugError(f"calibration is a {type(calibration).__name__}: {_REMEDY}")
    batch = {str(name): value for name, value in calibration.items()}
    for name, value in batch.items():
        if not isinstance(value, Tensor):
            continue
        if value.numel() == 0:
            raise SpikeplugError(f"calibration holds no {name}: {_REMEDY}")
        if value.is_floating_point() and bool(torch.isnan(value).any()):
            raise SpikeplugError(f"{name} of calibration holds NaN: give other inputs.")
    _check_ids(model, batch.get("input_ids"))
    return batch


def _check_ids(model: nn.Module, ids: object) -> None:
    size = getattr(getattr(model, "config", None), "vocab_size", None)
    if isinstance(ids, Tensor) and isinstance(size, int) and not 0 <= int(ids.min()) <= int(ids.max()) < size:
        raise SpikeplugError(
            f"calibration has the token {int(ids.max())}, but the model knows {size}: give ids of its own tokenizer."
        )


def _own_tokens(model: nn.Module) -> Tensor | None:
    """Return the last TOKENS tokens of the embedded text by the model's own tokenizer, (1, TOKENS), or None."""
    name = getattr(getattr(model, "config", None), "_name_or_path", "")
    if not name:
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)
    except Exception:  # whatever transformers finds wrong with it: there is none
        return None
    return text_tokens(tokenizer)


def text_tokens(tokenizer: Any) -> Tensor:
    """Return the last TOKENS tokens of the embedded text, int64 (1, TOKENS)."""
    ids = tokenizer(english_text()[-16 * TOKENS :], add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([ids[-TOKENS:]])
