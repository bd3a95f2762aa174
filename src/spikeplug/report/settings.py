"""What a report is made of: one frozen, validated record, and what of it must not change while a run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.presets import as_numerics

#: In the order in which they are measured and shown.
STUDIES = ("propagation", "ablation", "sweeps", "location", "rasters", "effort")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure. Errors: SpikeplugError for a value out of its domain.

    context   length of the windows, in tokens; at least 8
    tokens    tokens of the text read by every measurement (at least one window)
    studies   which of STUDIES
    quick     fewer points in each study
    token     which token of the first window the rasters show; negative: counted from its end
    text      the text; None: the reference text of this Python (`pydoc_data.topics`)
    """

    numerics: Numerics = field(default_factory=Numerics)
    context: int = 2048
    tokens: int = 4096
    studies: tuple[str, ...] = STUDIES
    quick: bool = False
    token: int = -1
    text: str | None = None

    def __post_init__(self) -> None:
        as_numerics(self.numerics)
        if self.context < 8:
            raise SpikeplugError(f"context is {self.context}; it must be 8 tokens or more.")
        if self.tokens < 1:
            raise SpikeplugError(f"tokens is {self.tokens}; it must be 1 or more.")
        if not -self.context <= self.token < self.context:
            raise SpikeplugError(f"token is {self.token}; it must lie within the context of {self.context} tokens.")
        if not self.studies:
            raise SpikeplugError(f"no study was named; choose out of {', '.join(STUDIES)}.")
        for name in self.studies:
            if name not in STUDIES:
                raise SpikeplugError(f"no study {name!r}; choose out of {', '.join(STUDIES)}.")


def arguments_of(settings: Settings, model: Mapping[str, Any], text_sha256: str, numerics: int) -> dict[str, Any]:
    """All that a row depends on, and so all that must be the same where a run goes on. Studies may be added."""
    return {
        "model": dict(model),
        "numerics": settings.numerics.to_dict(),
        "context": settings.context,
        "tokens": settings.tokens,
        "quick": settings.quick,
        "token": settings.token,
        "text": text_sha256,
        "numerics_version": numerics,
    }


def hash_of(arguments: Mapping[str, Any]) -> str:
    """SHA-256 of the arguments, whatever their order."""
    return hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
