"""Define what a report is asked for, and what must stay the same while a run is resumed. Imports no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spikeplug.errors import SpikeplugError
from spikeplug.measurement.recipes import TOKENS, Recipe, as_recipe, saved_levels
from spikeplug.measurement.text import check_tokens
from spikeplug.numerics import Fields, Numerics
from spikeplug.presets import as_numerics, as_realisation
from spikeplug.realisation import Realisation
from spikeplug.report.sections import STUDIES

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Settings(Fields):
    """Choose what a report measures.

    numerics      Numerics, or the name of a preset
    recipe        Recipe(...) or its name: how the model is made spiking
    realisation   the neurons whose events are counted and drawn; None: those of the numerics' preset
    context       length of the windows, in tokens; at least 8
    tokens        tokens of the text read by every measurement; at least `context`
    studies       names out of STUDIES: the sections of the report
    quick         True: measure fewer points in each study
    token         index of the token in the first window that the rasters show; negative: counted from the end
    text          the text; None: the reference text of this Python (`pydoc_data.topics`)

    Errors: SpikeplugError for a value out of its domain.
    """

    numerics: Numerics | str = "default"
    recipe: Recipe | str = "operators"
    realisation: Realisation | str | None = None
    context: int = 2048
    tokens: int = 4096
    studies: tuple[str, ...] = STUDIES
    quick: bool = False
    token: int = -1
    text: str | None = None

    def __post_init__(self) -> None:
        if self.realisation is None and isinstance(self.numerics, str):
            object.__setattr__(self, "realisation", self.numerics)  # a preset is both
        numerics = as_numerics(self.numerics)
        object.__setattr__(self, "numerics", numerics)
        object.__setattr__(self, "recipe", as_recipe(self.recipe))
        object.__setattr__(self, "realisation", as_realisation(self.realisation, numerics))
        if self.context < 8:
            raise SpikeplugError(f"context is {self.context}; it must be 8 tokens or more.")
        check_tokens(self.tokens, self.context)
        if not -self.context <= self.token < self.context:
            raise SpikeplugError(f"token is {self.token}; it must lie within the context of {self.context} tokens.")
        if not self.studies:
            raise SpikeplugError(f"no study was named; choose out of {', '.join(STUDIES)}.")
        for name in self.studies:
            if name not in STUDIES:
                raise SpikeplugError(f"no study {name!r}; choose out of {', '.join(STUDIES)}.")


def arguments_of(
    settings: Settings, model: Mapping[str, Any], text: str, spiking: PreTrainedModel | None = None
) -> dict[str, Any]:
    """Return everything that the values of a row depend on, for JSON; it must be the same when a run is resumed.

    text      that is read
    spiking   the whole spiking model, if one was given

    The names of the studies are not in it, so a resumed run may add studies.
    """
    numerics = as_numerics(settings.numerics)
    return {
        "model": dict(model),
        "recipe": _recipe_of(settings, spiking),
        "numerics": numerics.to_dict(),
        "realisation": as_realisation(settings.realisation, numerics).to_dict(),
        "context": settings.context,
        "tokens": settings.tokens,
        "quick": settings.quick,
        "token": settings.token,
        "text": _sha256(text),
    }


def _recipe_of(settings: Settings, spiking: PreTrainedModel | None) -> dict[str, Any]:
    """Return what a run's header says of the recipe."""
    recipe = as_recipe(settings.recipe)
    if not recipe.whole:
        return {"name": recipe.name, "levels": None, "calibration": None, "saved": False}
    levels = recipe.levels() if spiking is None else saved_levels(spiking)
    calibration: dict[str, Any] | None = None
    if spiking is None and recipe.calibrated:
        text = None if recipe.text is None else _sha256(recipe.text)
        calibration = {"text": text, "tokens": recipe.tokens or TOKENS}
    facts = {"levels": dataclasses.asdict(levels), "calibration": calibration, "saved": spiking is not None}
    return {"name": recipe.name, **facts}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def hash_of(arguments: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the arguments, in hexadecimal; the order of their names does not matter."""
    return hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
