"""The recipes of published pipelines, as near to their publication as a conversion without training allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spikeplug.conversion.recipes.recipe import Nonlinearities, Pipeline, Site, Step

_OPERANDS: tuple[tuple[str, Site], ...] = (
    ("inputs of linear layers", "linear"),
    ("queries", "query"),
    ("keys", "key"),
    ("values", "value"),
)
_RANGES = {"largest": "the largest magnitudes", "least squares": "those of least squared error"}
_LAYERWISE = "Time runs layer by layer: a neuron gets its whole input first, then settles."
_ONLINE = "spikeplug.online runs it through the whole model."


def _everywhere(neuron: str, probability: str, **how: Any) -> tuple[Step, ...]:
    """Return a step for each operand of each product; `probability` is the neuron of probabilities, with one range."""
    coded = (Step(name=name, site=site, neuron=neuron, **how) for name, site in _OPERANDS)
    return *coded, Step(name="probabilities of attention", site="probability", neuron=probability)


def spikezip(
    levels: int = 32,
    steps: int | None = None,
    channels: bool = False,
    range: str = "largest",
    nonlinearities: Nonlinearities = "spiking",
) -> Pipeline:
    """Return the recipe of SpikeZIP-TF: ST-BIF neurons of `levels` levels.

    steps     T; None: as many as settle every neuron
    channels  a threshold per channel, not one per tensor
    range     `largest` or `least squares`, see `Step`
    """
    ends = "" if steps is None else f" {steps}"
    positive = f"st_bif 0 {levels - 1}{ends}"
    return Pipeline(
        name="spikezip",
        source="SpikeZIP-TF: You et al., ICML 2024, arXiv 2406.03470",
        steps=_everywhere(
            f"st_bif {-(levels // 2)} {levels - levels // 2 - 1}{ends}",
            positive,
            positive=positive,
            range=range,
            channels=channels,
        ),
        nonlinearities=nonlinearities,
        deviations=(
            f"Ranges are {_RANGES.get(range, range)} of calibration text; thresholds are published as learned with the "
            "weights, by quantisation-aware training.",
            *(("Each channel has a threshold of its own, not each tensor.",) if channels else ()),
            f"{_LAYERWISE} {_ONLINE}",
        ),
    )


def spikellm(
    bits: int = 4, extra_bits: int = 1, salient: float = 0.1, nonlinearities: Nonlinearities = "spiking"
) -> Pipeline:
    """Return the recipe of SpikeLLM: GIF neurons of `bits` bits in one time step, a range per token.

    extra_bits, salient  of the share of channels that count most: beyond `bits`, in 2^extra_bits time steps
    """
    neuron = f"gif {bits} {extra_bits}"
    return Pipeline(
        name="spikellm",
        source="SpikeLLM: Xing et al., ICLR 2025, arXiv 2407.04752",
        steps=tuple(
            Step(name=name, site=site, neuron=neuron, range="each vector", salient=salient if site == "linear" else 0.0)
            for name, site in _OPERANDS
        ),
        nonlinearities=nonlinearities,
        deviations=(
            "Weights stay float; they are published in 2 to 4 bits, with learned transforms.",
            "A time step sends up to 2^bits spikes, not one fewer, so that no code loses its tail.",
            "Saliency is that of calibration text; operands of attention have no salient channels.",
            "The probabilities of attention are not coded; they are published at 16 bits.",
        ),
    )


def fas(steps: int = 8, signed: bool = False, nonlinearities: Nonlinearities = "spiking") -> Pipeline:
    """Return the recipe of FAS: integrate-and-fire neurons after the activations of feed-forward layers.

    signed  give negative numbers a second population, which activations other than ReLU need
    """
    return Pipeline(
        name="fas",
        source="FAS: Chen et al., arXiv 2502.04405",
        steps=(
            Step(
                name="outputs of activations",
                site="activation",
                neuron=f"{'qcfs' if signed else 'if'} {steps}",
                range="least squares",
            ),
        ),
        nonlinearities=nonlinearities,
        deviations=(
            "Nothing is fine-tuned: weights are those of the model, and thresholds have the least squared error on "
            "calibration text.",
            *(("Negative numbers have a second population.",) if signed else ()),
            _LAYERWISE,
        ),
    )


def las(steps: int = 16, nonlinearities: Nonlinearities = "spiking") -> Pipeline:
    """Return the recipe of LAS: few-spikes neurons up to 10, and others for outliers, in `steps` binary digits."""
    return Pipeline(
        name="las",
        source="LAS: Chen et al., AAAI 2026, arXiv 2505.09659",
        steps=_everywhere(f"few_spikes {steps}", f"few_spikes {steps}", range="at most 10", outliers=True),
        nonlinearities=nonlinearities,
        deviations=(
            "The range of outliers is the largest magnitude on calibration text; it is published as 500.",
            "Nonlinearities are spikeplug's, or exact; they are published as tables.",
        ),
    )


def phase(
    steps: int = 8, base: float = 2.0, channels: bool = False, nonlinearities: Nonlinearities = "spiking"
) -> Pipeline:
    """Return the recipe of SpikingLLM: phase neurons with thresholds that fall by `base` in each of `steps` steps.

    channels  a threshold per channel, not one per tensor
    """
    neuron = " ".join(["phase", *[f"{base:g}"] * steps])
    return Pipeline(
        name="phase",
        source="SpikingLLM; several bases: Wang et al., arXiv 2508.07710",
        steps=_everywhere(neuron, neuron, channels=channels),
        nonlinearities=nonlinearities,
        deviations=(
            *(("Each channel has a threshold of its own, not each tensor.",) if channels else ()),
            "All time steps have one base, and no base or threshold is fitted by gradients.",
            "The largest magnitude on calibration text is the last level of a neuron; it is published as τ, the last "
            "level and a step.",
            "Nonlinearities are spikeplug's, or exact; arXiv 2508.07710 approximates them by its neurons.",
        ),
    )


#: By the name that `convert(recipe=...)` takes.
RECIPES: Mapping[str, Callable[..., Pipeline]] = {
    "spikezip": spikezip,
    "spikellm": spikellm,
    "fas": fas,
    "las": las,
    "phase": phase,
}
