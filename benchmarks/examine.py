"""Measure everything that the conformance table says of one architecture."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import torch
from small_models import Architecture
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import spikeplug

NEW_TOKENS = 8


@dataclass(frozen=True)
class Generation:
    """Compare greedy continuations of two prompts, one of them padded.

    cached_alike   the converted model gives the same tokens with the cache and without
    exact_alike    so does the exact model
    agreement      share of the converted model's tokens that equal the exact model's
    """

    cached_alike: bool
    exact_alike: bool
    agreement: float


@dataclass(frozen=True)
class Conformance:
    """Hold one row of the table.

    seconds     time of `convert`
    replaced    number of places replaced
    leftovers   nonlinear places left, as "path: operator"
    error       largest difference of the output, over the largest value
    before      float nonlinearities executed in one forward of the exact model, by op
    after       those of the converted model, as "path: op"
    generation  None if the model does not generate
    reverted    the output after `revert` is bit-identical
    """

    name: str
    kind: str
    parameters: int
    seconds: float
    replaced: int
    leftovers: tuple[str, ...]
    error: float
    before: dict[str, int]
    after: tuple[str, ...]
    generation: Generation | None
    reverted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def examine(architecture: Architecture, numerics: spikeplug.Numerics | None = None) -> Conformance:
    """Run a model exact and converted, generate, revert and run it again; return what was found."""
    model, inputs = architecture.build(), architecture.inputs()
    prompt = architecture.prompt() if architecture.prompt else None
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of torch and transformers, about prototypes and deprecations of their own
        exact = architecture.output(model(**inputs))
        with spikeplug.audit(model) as before:
            model(**inputs)
        exact_tokens = None if prompt is None else [_generate(model, prompt, cache) for cache in (True, False)]
        start = time.perf_counter()
        report = spikeplug.convert(model, numerics)
        seconds = time.perf_counter() - start
        with spikeplug.audit(model) as after:
            spiking = architecture.output(model(**inputs))
        tokens = None if prompt is None else [_generate(model, prompt, cache) for cache in (True, False)]
        spikeplug.revert(model)
        again = architecture.output(model(**inputs))
    return Conformance(
        name=architecture.name,
        kind=architecture.kind,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=seconds,
        replaced=len(report.replaced),
        leftovers=tuple(f"{entry.path}: {entry.operator}" for entry in report.leftovers),
        error=relative_error(spiking, exact),
        before=before.counts,
        after=tuple(f"{entry.path}: {entry.op}" for entry in after.entries),
        generation=None if tokens is None or exact_tokens is None else _compared(tokens, exact_tokens),
        reverted=torch.equal(again, exact),
    )


@dataclass(frozen=True)
class Whole:
    """Hold what the table says of the recipe "whole", calibrated on the inputs that are compared.

    left        places that the report leaves in float, as "path: operator"
    executed    what a forward of the converted model executes in float, linear or not, as "path: op"
    moved       share of the tokens that a router sends to other experts than in the exact model
    error       of all other tokens: norm of the output's difference, over the norm of the output
    generation  None if the model does not generate
    reverted    the output after `revert` is bit-identical
    """

    name: str
    left: tuple[str, ...]
    executed: tuple[str, ...]
    moved: float
    error: float
    generation: Generation | None
    reverted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def examine_whole(architecture: Architecture) -> Whole:
    """Run a model exact and made whole, generate, revert and run it again; return what was found."""
    model, inputs = architecture.build(), architecture.inputs()
    prompt = architecture.prompt() if architecture.prompt else None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch and transformers, about prototypes and deprecations of their own
        with _Chosen() as before:
            exact = architecture.output(model(**inputs))
        exact_tokens = None if prompt is None else [_generate(model, prompt, cache) for cache in (True, False)]
        report = spikeplug.convert(model, recipe="whole", calibration=inputs)
        with spikeplug.audit(model, linear=True) as found, _Chosen() as after:
            spiking = architecture.output(model(**inputs))
        tokens = None if prompt is None else [_generate(model, prompt, cache) for cache in (True, False)]
        spikeplug.revert(model)
        with _Chosen():  # as before: under a function mode torch takes no fused path
            again = architecture.output(model(**inputs))
    exact_rows, rows = (torch.atleast_2d(output.double()).flatten(0, -2) for output in (exact, spiking))
    moved = _moved(before.found, after.found, len(rows))
    return Whole(
        name=architecture.name,
        left=tuple(f"{entry.path}: {entry.operator}" for entry in report.left),
        executed=tuple(f"{entry.path}: {entry.op}" for entry in found.entries),
        moved=float(moved.double().mean()),
        error=float((rows - exact_rows)[~moved].norm() / exact_rows[~moved].norm()),
        generation=None if tokens is None or exact_tokens is None else _compared(tokens, exact_tokens),
        reverted=torch.equal(again, exact),
    )


class _Chosen(TorchFunctionMode):
    """Collect what torch.topk chooses within the `with` block, as routers do: int64 (tokens, chosen)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.topk, Tensor.topk):
            self.found.append(result.indices.flatten(0, -2).sort(-1).values)
        return result


def _moved(before: list[Tensor], after: list[Tensor], tokens: int) -> Tensor:
    """Return for which tokens other experts were chosen, bool (tokens,), by choices of which there is one per token."""
    moved = torch.zeros(tokens, dtype=torch.bool)
    for first, second in zip(before, after, strict=True):
        if len(first) == tokens:
            moved |= (first != second).any(-1)
    return moved


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference over the largest absolute value expected."""
    return float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())


def _generate(model: nn.Module, prompt: dict[str, Tensor], cache: bool) -> Tensor:
    options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, "use_cache": cache}
    tokens: Tensor = model.generate(**prompt, **options)  # type: ignore[operator]
    return tokens[:, -NEW_TOKENS:]


def _compared(tokens: list[Tensor], exact: list[Tensor]) -> Generation:
    alike = torch.equal(tokens[0], tokens[1])
    return Generation(alike, torch.equal(exact[0], exact[1]), float((tokens[0] == exact[0]).double().mean()))
