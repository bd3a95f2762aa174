"""Audit any model exact and converted: one forward of each on made-up inputs (the record: docs/audit-json.md)."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikeplug.conversion import Audit, Report, audit
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.comparing import converted as converted_model
from spikeplug.measurement.record import origin
from spikeplug.numerics import Numerics
from spikeplug.presets import as_numerics

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Raised by every change that a reader of the file could notice.
INSPECTION_SCHEMA_VERSION = 2
# Sizes of inputs where the config has none: samples and frames of sound, frequency bands, side of an image.
_SAMPLES, _FRAMES, _BANDS, _SIDE = 16000, 128, 80, 224


@dataclass(frozen=True)
class Inspection:
    """What a model executed in floating point in one forward pass, before and after conversion.

    inputs             name of each argument of the forward -> its shape
    report             what the conversion replaced and left
    exact, converted   float nonlinearities executed before and after the conversion
    error              max |converted - exact output| / max |exact output|; None: no known tensor, or all 0
    """

    inputs: dict[str, list[int]]
    report: Report
    exact: Audit
    converted: Audit
    error: float | None

    def to_record(self, numerics: Numerics, arguments: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inspection as the values of the JSON file of `spikeplug audit`, with date, commit and machine.

        arguments   name -> value of the command line's arguments
        model       facts about the model, such as its name and number of parameters
        """
        return {
            "schema_version": INSPECTION_SCHEMA_VERSION,
            **origin(),
            "arguments": dict(arguments),
            "numerics": numerics.to_dict(),
            "model": dict(model),
            "inputs": self.inputs,
            "exact": self.exact.to_dict(),
            "converted": self.converted.to_dict(),
            "conversion": self.report.to_dict(),
            "error": self.error,
        }


def inspect_model(
    model: PreTrainedModel,
    numerics: Numerics | str = "default",
    *,
    operators: Iterable[str] | None = None,
    exclude: str | None = None,
    tokens: int = 64,
) -> Inspection:
    """Run a model once exact and once converted on made-up inputs; return what each run executed in floating point.

    Afterwards the model is exact again.

    tokens      length of the made-up text, for models that read text
    numerics    Numerics, or the name of a preset
    operators   names of the operators to replace; None: all
    exclude     regular expression of module paths that stay exact

    Errors: SpikeplugError if tokens is below 1 or the model does not run on made-up inputs, and those of `convert`.
    """
    check_length(tokens)
    numerics = as_numerics(numerics)
    with torch.inference_mode():
        inputs = _inputs_that_run(model, tokens)
        with audit(model) as exact:
            expected = model(**inputs)
        names = None if operators is None else tuple(operators)
        with converted_model(model, numerics, names, exclude) as report, audit(model) as converted:
            output = model(**inputs)
    shapes = {name: list(value.shape) for name, value in inputs.items()}
    return Inspection(shapes, report, exact, converted, _relative_error(output, expected))


def check_length(tokens: int) -> None:
    """Check that `tokens`, the length of a made-up text, is 1 or more. Errors: SpikeplugError if not."""
    if tokens < 1:
        raise SpikeplugError(f"tokens is {tokens}; give at least 1.")


def _inputs_that_run(model: PreTrainedModel, tokens: int) -> dict[str, Tensor]:
    reason = f"its forward takes {model.main_input_name}"
    for inputs in made_up_inputs(model, tokens):
        try:
            model(**inputs)
        except Exception as error:  # an unknown forward may raise anything
            given = ", ".join(f"{name} {tuple(value.shape)}" for name, value in inputs.items())
            reason = f"on {given}: {type(error).__name__}: {error}"
        else:
            return inputs
    raise SpikeplugError(
        f"{type(model).__name__} does not run on made-up inputs ({reason}): use spikeplug.audit in Python, with inputs "
        "of your own."
    )


def made_up_inputs(model: PreTrainedModel, tokens: int) -> list[dict[str, Tensor]]:
    """Return several guesses of the keyword arguments of a model's forward, for a batch of 1; the fullest guess first.

    Values are random with a fixed seed. Shapes come from the model's config. `tokens` is the length of a text.
    """
    config, main = model.config, model.main_input_name
    known = inspect.signature(model.forward).parameters
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator).to(model.dtype)

    def ids(length: int) -> Tensor:
        text = config.get_text_config()
        length = min(length, getattr(text, "max_position_embeddings", None) or length)
        return torch.randint(text.vocab_size, (1, length), generator=generator)

    def image() -> Tensor:
        vision = getattr(config, "vision_config", config)
        side = getattr(vision, "image_size", None) or _SIDE
        return normal(getattr(vision, "num_channels", 3), *((side, side) if isinstance(side, int) else side))

    choices: list[dict[str, Tensor]] = []
    if main == "input_ids":
        choices = [{"input_ids": ids(tokens)}]
    if "pixel_values" in known:
        with_text = [{"pixel_values": image(), **choice} for choice in choices]
        choices = with_text + choices or [{"pixel_values": image()}]
        if main == "pixel_values" and "input_ids" in known:
            choices.insert(0, {"pixel_values": image(), "input_ids": ids(tokens)})
    if main == "input_values":
        choices = [{"input_values": normal(_SAMPLES)}]
    if main == "input_features":
        bands, frames = (
            getattr(config, "num_mel_bins", _BANDS),
            2 * getattr(config, "max_source_positions", _FRAMES // 2),
        )
        choices = [{"input_features": normal(bands, frames)}, {"input_features": normal(_FRAMES, bands)}]
    if config.is_encoder_decoder and "decoder_input_ids" in known:
        choices = [choice | {"decoder_input_ids": ids(min(tokens, 8))} for choice in choices]
    return choices


def _relative_error(output: Any, expected: Any) -> float | None:
    for name in ("logits", "logits_per_image", "last_hidden_state"):
        actual, exact = getattr(output, name, None), getattr(expected, name, None)
        if isinstance(actual, Tensor) and isinstance(exact, Tensor):
            largest = float(exact.double().abs().max())
            return float((actual.double() - exact.double()).abs().max()) / largest if largest else None
    return None
