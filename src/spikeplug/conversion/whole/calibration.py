"""Make the inputs of a calibration run from token ids, a tokenizer's result, or the embedded text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from spikeplug.english import english_text
from spikeplug.errors import SpikeplugError

#: Tokens of the embedded text that calibrate by default.
TOKENS = 512
_GIVE = 'give calibration=tokenizer(text, return_tensors="pt"), or the arguments of the model\'s forward by name'
_REMEDY = f"{_GIVE}; or calibration=False, to round weights to nearest."
_NEAREST = "All weights are rounded to nearest, which is less accurate"


class Calibration(NamedTuple):
    """Hold what rounds the weights.

    batch  keyword arguments of one run of the model, or None: each weight is rounded to nearest
    note   why there is no batch, as a sentence for the report; empty if there is one
    """

    batch: Mapping[str, Any] | None
    note: str = ""


def calibration_of(model: nn.Module, calibration: Any) -> Calibration:
    """Return what a request to `convert` rounds weights with.

    calibration  int64 token ids (tokens,) or (batch, tokens); the inputs by name; False; None: the end of the embedded
                 text, which no measurement reads, if the tokenizer lies where the model came from
    Errors: SpikeplugError for anything else, for ids beyond the vocabulary, and for no or non-finite inputs.
    """
    if calibration is False:
        return Calibration(None, f"{_NEAREST}: calibration is off.")
    if calibration is None:
        ids = _own_tokens(model)
        if ids is not None:
            return Calibration({"input_ids": ids})
        return Calibration(None, f"{_NEAREST}: the model's tokenizer is not at hand; {_GIVE}.")
    return Calibration(_batch(model, calibration))


def _batch(model: nn.Module, calibration: Any) -> Mapping[str, Any]:
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
    """Return the last TOKENS tokens of the embedded text by the model's own tokenizer, (rows, columns), or None."""
    config: Any = getattr(model, "config", None)
    name = getattr(config, "_name_or_path", "")
    if not name:
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)
    except Exception:  # whatever transformers finds wrong with it: there is none
        return None
    return text_tokens(tokenizer, longest=getattr(config.get_text_config(), "max_position_embeddings", None))


def text_tokens(tokenizer: Any, tokens: int = TOKENS, text: str | None = None, longest: int | None = None) -> Tensor:
    """Return token ids to calibrate on: the first ones of a text, or the last ones of the embedded text.

    tokens   their number
    text     None: the embedded text
    longest  most tokens in one row, such as the positions of the model; None: any number

    Returns int64 (rows, columns): one row, or, if `longest` is less than `tokens`, as many full rows as there are.
    Errors: SpikeplugError for a text with fewer tokens.
    """
    read = english_text()[-16 * tokens :] if text is None else text
    ids = list(tokenizer(read, add_special_tokens=False, verbose=False)["input_ids"])
    if len(ids) < tokens:
        raise SpikeplugError(
            f"the calibration text has {len(ids)} tokens, fewer than {tokens}: give a longer text, or fewer "
            "calibration tokens."
        )
    ids = ids[-tokens:] if text is None else ids[:tokens]
    columns = min(tokens, longest or tokens)
    rows = tokens // columns
    return torch.tensor(ids[: rows * columns]).view(rows, columns)
