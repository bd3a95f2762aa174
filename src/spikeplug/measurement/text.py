"""Texts: where they come from, how they become token ids and windows, and whether a model can read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spikeplug.errors import SpikeplugError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def read_text(path: str | Path) -> str:
    """Return the UTF-8 text of a file. Errors: SpikeplugError if it is missing, unreadable or not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpikeplugError(
            f"{path} is not UTF-8 text (byte {error.start}): convert it, e.g. with `iconv -t utf-8`."
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        raise SpikeplugError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}; give a UTF-8 text file."
        ) from error


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = True) -> list[int]:
    """Return the token ids of a text. special: add the special tokens (a start mark) the tokenizer adds by default.

    Errors: SpikeplugError if a text that is not empty has no tokens.
    """
    ids = list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])
    if text and not ids:
        raise SpikeplugError("the tokenizer makes no tokens of the text: it has no vocabulary; save the model's own.")
    return ids


def cut_windows(ids: list[int], context: int, tokens: int) -> Tensor:
    """Cut the start of a text into windows of `context` tokens that do not overlap: int64 (windows, context).

    ids      token ids of the text
    tokens   most tokens to use, at least context: there are tokens // context windows, or fewer in a shorter text

    Errors: SpikeplugError if the text is shorter than one window.
    """
    import torch

    if len(ids) < context:
        raise SpikeplugError(
            f"the text has {len(ids)} tokens, fewer than the context of {context}: give a longer --text or a "
            "smaller --context."
        )
    count = min(tokens // context, len(ids) // context)
    return torch.tensor(ids[: count * context], dtype=torch.int64).view(count, context)


def check_tokens(tokens: int, context: int) -> None:
    """Check that `tokens`, the tokens to read, fill a window of `context` tokens. Errors: SpikeplugError if not."""
    if tokens < 1:
        raise SpikeplugError(f"tokens is {tokens}; it must be 1 or more.")
    if tokens < context:
        raise SpikeplugError(
            f"tokens is {tokens}, fewer than one window of {context}: give {context} tokens or more, or a smaller "
            "context."
        )


def positions_of(model: PreTrainedModel) -> int:
    """Return the longest input of a model in tokens; 2^31 for a model without a table of positions."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 31)


def check_context(model: PreTrainedModel, context: int) -> None:
    """Check that a model can read windows of `context` tokens. Errors: SpikeplugError if it has fewer positions."""
    if context > positions_of(model):
        raise SpikeplugError(
            f"the context of {context} is above the model's {positions_of(model)} positions: give a smaller --context."
        )


def check_vocabulary(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Check that a model has an embedding for every token id in `ids`. Errors: SpikeplugError if not."""
    weight: Tensor = model.get_input_embeddings().get_parameter("weight")
    highest = max(ids, default=0)
    if highest >= weight.shape[0]:
        raise SpikeplugError(
            f"the tokenizer yields token {highest}, but the model has {weight.shape[0]} embeddings: give the tokenizer "
            "that belongs to the model."
        )
