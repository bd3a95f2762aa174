"""The text that is read: where it comes from, how it becomes token ids and windows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def default_text() -> str:
    """The English reference text every CPython carries: `pydoc_data.topics`, in key order, blank lines between."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def read_text(path: str | Path) -> str:
    """The UTF-8 text of a file. Errors: SpikeplugError if it is missing, unreadable or not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpikeplugError(
            f"{path} is not UTF-8 text (byte {error.start}): convert it, e.g. with `iconv -t utf-8`."
        ) from error
    except OSError as error:
        raise SpikeplugError(f"cannot read {path}: {error.strerror or error}.") from error


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = True) -> list[int]:
    """Token ids of `text`; with `special`, the marks the tokenizer puts at the start of a document by itself."""
    return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])


def cut_windows(ids: list[int], context: int, tokens: int) -> Tensor:
    """Consecutive, non-overlapping windows from the start of the text: int64 (windows, context).

    windows = max(1, tokens // context), or as many whole windows as the text holds.
    Errors: SpikeplugError if the text is shorter than one window.
    """
    if len(ids) < context:
        raise SpikeplugError(
            f"the text has {len(ids)} tokens, fewer than the context of {context}: give a longer --text or a "
            "smaller --context."
        )
    count = min(max(1, tokens // context), len(ids) // context)
    return torch.tensor(ids[: count * context], dtype=torch.int64).view(count, context)
