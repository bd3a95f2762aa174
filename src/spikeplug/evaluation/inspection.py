"""What any model executes in floating point, exact and converted: one forward of each on made-up inputs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikeplug.conversion import Audit, Report, audit, convert, revert
from spikeplug.errors import SpikeplugError
from spikeplug.evaluation.record import origin
from spikeplug.numerics import Numerics

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INSPECTION_SCHEMA_VERSION = 1
# Where the model does not say: samples and frames of sound, frequency bands, side of an image.
_SAMPLES, _FRAMES, _BANDS, _SIDE = 16000, 128, 80, 224


@dataclass(frozen=True)
class Inspection:
    """inputs: shape of each argument; error: largest change of the output, over its largest value (None: unknown)."""

    inputs: dict[str, list[int]]
    report: Report
    exact: Audit
    converted: Audit
    error: float | None

    def to_record(self, numerics: Numerics, arguments: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the JSON file; docs/audit-json.md describes them."""
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
    numerics: Numerics,
    *,
    operators: Iterable[str] | None = None,
    exclude: str | None = None,
    tokens: int = 64,
) -> Inspection:
    """Run the model on `tokens` made-up tokens (or an image, or sound) before and after `convert`; it is reverted.

    Errors: SpikeplugError if tokens is below 1 or the model does not run on made-up inputs, and those of `convert`.
    """
    if tokens < 1:
        raise SpikeplugError(f"tokens is {tokens}; give at least 1.")
    with torch.inference_mode():
        inputs = _inputs_that_run(model, tokens)
        with audit(model) as exact:
            expected = model(**inputs)
        report = convert(model, numerics, operators=operators, exclude=exclude)
        try:
            with audit(model) as converted:
                output = model(**inputs)
        finally:
            revert(model)
    shapes = {name: list(value.shape) for name, value in inputs.items()}
    return Inspection(shapes, report, exact, converted, _relative_error(output, expected))


def _inputs_that_run(model: PreTrainedModel, tokens: int) -> dict[str, Tensor]:
    reason = f"its forward asks for {model.main_input_name}"
    for inputs in made_up_inputs(model, tokens):
        try:
            model(**inputs)
        except Exception as error:  # a stranger's forward may raise anything
            given = ", ".join(f"{name} {tuple(value.shape)}" for name, value in inputs.items())
            reason = f"on {given}: {type(error).__name__}: {error}"
        else:
            return inputs
    raise SpikeplugError(
        f"{type(model).__name__} does not run on made-up inputs ({reason}): use spikeplug.audit in Python, with inputs "
        "of your own."
    )


def made_up_inputs(model: PreTrainedModel, tokens: int) -> list[dict[str, Tensor]]:
    """What the model's forward may ask for, whatever is most of it first; one row of each, always the same values."""
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
