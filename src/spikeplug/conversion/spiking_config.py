"""Keep a conversion as transformers does: as the `quantization_config` of a model's config.json."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config
from transformers.utils.quantization_config import QuantizationConfigMixin

from spikeplug.conversion.check import check_request
from spikeplug.conversion.patterns import check_pattern
from spikeplug.conversion.recipes.recipe import Pipeline
from spikeplug.conversion.recipes.request import as_recipe
from spikeplug.conversion.whole.layout import Layout
from spikeplug.conversion.whole.recipe import Whole
from spikeplug.errors import SpikeplugError, shown
from spikeplug.numerics import Numerics
from spikeplug.presets import as_numerics

METHOD = "spiking"
_LONGEST_NAME = 200


@register_quantization_config(METHOD)
class SpikingConfig(QuantizationConfigMixin):
    """Configure a conversion while loading: `from_pretrained(name, quantization_config=SpikingConfig())`.

    numerics     Numerics(...), a dict of its fields, or the name of a preset
    operators    names of the operators to use, as in `convert`; None: all
    exclude      regular expression, as in `convert`: a module whose path it matches stays exact. Patterns that could
                 take long to search are refused, because a config.json may be of unknown origin
    model_class  the class that was converted, where that is a part of the model saved; normally left out
    recipe       "operators", "whole" or Whole(...), as in `convert`, for a model that is not converted yet
    layout       written by save_pretrained for a whole model: where its int8 weights are

    It holds known values only: nothing in a config.json can name a file, a class to import or code.
    Errors: SpikeplugError for unknown fields and any value out of its domain.
    """

    def __init__(
        self,
        /,
        numerics: Numerics | dict[str, Any] | str = "default",
        operators: Iterable[str] | None = None,
        exclude: str | None = None,
        model_class: str | None = None,
        recipe: Whole | str = "operators",
        layout: Layout | dict[str, Any] | None = None,
        quant_method: str = METHOD,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise SpikeplugError(
                f"unknown field {shown(min(unknown))} of a SpikingConfig: the fields are numerics, operators, "
                "exclude, model_class, recipe and layout."
            )
        if quant_method != METHOD:
            raise SpikeplugError(
                f"quant_method is {shown(quant_method)}: leave it out, a SpikingConfig has {METHOD!r}."
            )
        if isinstance(exclude, str):
            check_pattern(exclude)
        check_request(operators, exclude)
        if model_class is not None and not (
            isinstance(model_class, str) and model_class.isidentifier() and len(model_class) <= _LONGEST_NAME
        ):
            raise SpikeplugError("model_class is not the name of a class: leave it out.")
        self.quant_method = METHOD  # type: ignore[assignment]  # transformers' own methods are an enumeration of str
        self.numerics = _as_numerics(numerics)
        self.operators = None if operators is None else tuple(sorted(set(operators)))
        self.exclude, self.model_class = exclude, model_class
        wanted = as_recipe(recipe, operators, None)
        if isinstance(wanted, Pipeline):
            raise SpikeplugError(
                f"the recipe {wanted.name} is calibrated on a loaded model: load it first, then call spikeplug.convert."
            )
        self.recipe = wanted
        self.layout = layout if layout is None or isinstance(layout, Layout) else Layout.from_dict(layout)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON. All fields of the numerics are written, so a later default changes none."""
        return {
            "quant_method": self.quant_method,
            "numerics": self.numerics.to_dict(),
            "operators": None if self.operators is None else list(self.operators),
            "exclude": self.exclude,
            "model_class": self.model_class,
            **({} if self.layout is None else {"layout": self.layout.to_dict()}),
        }

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        yield from self.to_dict().items()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpikingConfig) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.numerics, self.operators, self.exclude, self.model_class))


def _as_numerics(numerics: Any) -> Numerics:
    if isinstance(numerics, dict) and all(isinstance(name, str) for name in numerics):
        return Numerics.from_dict(numerics)
    if numerics is None:
        raise SpikeplugError(
            "numerics is null: leave it out for the default, or give its fields or the name of a preset."
        )
    return as_numerics(numerics)


def saved_as(
    model: nn.Module,
    numerics: Numerics,
    operators: Iterable[str] | None,
    exclude: str | None,
    places: Mapping[str, frozenset[str]],
    matched: frozenset[str],
    layout: Layout | None = None,
) -> dict[str, SpikingConfig]:
    """Return what each config.json should say of a conversion, by the path of the model that has it.

    That is the model itself, or the transformers models inside a container, such as a SentenceTransformer.
    A model with another quantizer says nothing.
    An `exclude` that a config.json may not use, or that is of a container's paths, is written as the paths it matches.

    places   the operators that the places of the model need, by path
    matched  the paths of the model that `exclude` matches
    layout   of a whole model
    """
    found: dict[str, SpikingConfig] = {}
    models = {path: module for path, module in model.named_modules() if isinstance(module, PreTrainedModel)}
    for path, part in models.items():
        prefix = f"{path}." if path else ""
        if any(path.startswith(f"{outer}.") or (path and not outer) for outer in models if outer != path):
            continue
        other = getattr(part.config, "quantization_config", None)
        if other is not None and not isinstance(other, SpikingConfig) and dict(other).get("quant_method") != METHOD:
            continue
        inside = {place: needed for place, needed in places.items() if place == path or place.startswith(prefix)}
        own = None if operators is None else [name for name in operators if any(name in o for o in inside.values())]
        if path and not any(needed and place not in matched for place, needed in inside.items()):
            continue  # nothing of it is replaced
        excluded = _exclude_within(prefix, exclude, matched, inside)
        below = None if layout is None else layout.under(prefix)
        found[path] = SpikingConfig(numerics, own, excluded, type(part).__name__, layout=below)
    return found


def _exclude_within(prefix: str, exclude: str | None, matched: frozenset[str], places: Iterable[str]) -> str | None:
    """Return the `exclude` for the config.json of one part of a converted model, or None if it excludes nothing there.

    prefix   path of the part with a dot at its end; empty for the whole model
    exclude  regular expression of the request, which was searched in the paths of the whole model
    matched  the paths that it matches
    places   paths of the places in the part

    The result is searched in the part's own paths. Where `exclude` cannot be used there, it lists the matched paths.
    """
    if exclude is None or (prefix and matched.isdisjoint(places)):
        return None
    with suppress(SpikeplugError):
        if not prefix:
            check_pattern(exclude)
            return exclude
    below = (f"{path}." for path in matched)
    paths = sorted(path.removeprefix(prefix).removesuffix(".") for path in below if path.startswith(prefix))
    return f"^(?:{'|'.join(map(re.escape, paths))})$"


def forget(model: nn.Module) -> None:
    """Remove the `SpikingConfig` from the model's config, so that `save_pretrained` does not write it any more.

    A model that is not one of transformers', or has another quantizer, stays as it is.
    """
    if not isinstance(model, PreTrainedModel):
        return
    quantizer = vars(model).get("hf_quantizer")
    if isinstance(getattr(quantizer, "quantization_config", None), SpikingConfig):
        quantizer.remove_quantization_config(model)  # type: ignore[union-attr]
    if isinstance(getattr(model.config, "quantization_config", None), SpikingConfig):
        del model.config.quantization_config
