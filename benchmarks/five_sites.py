"""Compare codes on the tensors that SpikingJelly's Qwen2 recipe encodes: `python benchmarks/five_sites.py [--write]`.

The five sites of a SmolLM2: the embedding, query and key after rotation, value, and the product of the gated unit.
Weights and all else stay float, in every arm.

SpikingJelly  a step per channel, fixed: the largest magnitude, or a quantile, of calibration text over the levels
              (qcfs.py, compared with its class by `make bench-spikingjelly`)
ours          a step per vector, or block of channels, of each token; query, key and value are a vector per head. The
              encoder is that of `convert`, which also rotates query and key alike, so that no score changes. Nothing is
              calibrated

--write puts the table into docs/whole-figures.md, as `make whole` does.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import pages
import torch
from qcfs import settled
from rich.console import Console
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from whole import compared, machine

from spikeplug.english import english_text
from spikeplug.library import OPERATORS
from spikeplug.measurement.loading import find_source, load
from spikeplug.measurement.text import cut_windows, encode

#: The name of a site and its tensor (1, ..., tokens, channels), to what takes the tensor's place.
Code = Callable[[str, Tensor], Tensor]
CONTEXT = 512
#: Time steps, levels of the calibrated range, and the quantile that is the range. The first two are the settings that
#: SpikingJelly publishes for Qwen2.5; the third has the finest step that 160 time steps can have.
FIXED = {
    "SpikingJelly, T = 160, step = 0.999 quantile / 16 (its setting for 0.5B)": (160, 16, 0.999),
    "SpikingJelly, T = 512, step = maximum / 128 (its setting for 1.5B)": (512, 128, 1.0),
    "SpikingJelly, T = 160, step = maximum / 160": (160, 160, 1.0),
}
#: Levels, channels that share a step (0: the vector), and the order of the matrix that rotates query and key (0: none).
OURS = {
    "ours, 160 levels per vector": (160, 0, 0),
    "ours, 160 levels per vector, query and key rotated": (160, 0, 64),
    "ours, 160 levels per block of 32": (160, 32, 0),
    "ours, 256 levels per vector, query and key rotated": (256, 0, 64),
    "ours, 256 levels per block of 32": (256, 32, 0),
}
_CONSOLE = Console()


def with_code(model: Any, code: Code) -> Any:
    """Return a copy of a decoder that runs `code` at its five sites."""

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        sites = {"query": query, "key": key, "value": value}
        coded = (code(f"{name} {module.layer_idx}", tensor) for name, tensor in sites.items())
        return sdpa_attention_forward(module, *coded, *args, **kwargs)

    model = copy.deepcopy(model)
    name = "five sites"
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: code("embedding", output))
    for index, layer in enumerate(model.model.layers):
        layer.mlp.down_proj.register_forward_pre_hook(
            lambda module, inputs, site=f"product {index}": (code(site, inputs[0]),)
        )
    return model


class Ranges:
    """Keep the largest magnitudes of each channel over calibration tokens: as a code, it leaves every tensor alone.

    kept  magnitudes per channel
    """

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.largest: dict[str, Tensor] = {}

    def __call__(self, site: str, x: Tensor) -> Tensor:
        size = x.abs()
        if site in self.largest:
            size = torch.cat((self.largest[site], size), -2)
        self.largest[site] = size.topk(min(self.kept, size.shape[-2]), -2).values
        return x

    def quantile(self, site: str, quantile: float, tokens: int) -> Tensor:
        """Return the quantile of each channel's magnitudes, linear between two of them; (1, ..., 1, channels)."""
        place = (1 - quantile) * (tokens - 1)
        upper, lower = (self.largest[site].narrow(-2, int(place) + more, 1) for more in (0, 1))
        return torch.lerp(upper, lower, place - int(place))


def ranges(model: nn.Module, windows: Tensor) -> Ranges:
    """Return the ranges of the tensors at the five sites in windows (windows, tokens)."""
    least = min(quantile for _, _, quantile in FIXED.values())
    found = Ranges(int((1 - least) * windows.numel()) + 2)
    observed = with_code(model, found)
    with torch.inference_mode():
        for window in windows:
            observed(window[None], logits_to_keep=1)
    return found


def fixed(found: Ranges, tokens: int, steps: int, levels: int, quantile: float) -> Code:
    """Return the code of SpikingJelly's neurons with steps from the ranges of calibration tokens."""
    # 1e-6: the least range that its recipe takes.
    step = {site: found.quantile(site, quantile, tokens).clamp_min(1e-6) / levels for site in found.largest}
    return lambda site, x: settled(x, step[site], steps)


def ours(levels: int, block: int, rotation: int) -> Code:
    """Return the code of our encoder; query and key are rotated by the Hadamard matrix of that order."""

    def code(site: str, x: Tensor) -> Tensor:
        order = rotation if site.startswith(("query", "key")) else 0
        coded: Tensor = OPERATORS["quantise"](x, levels, block, order)
        return coded

    return code


def table(tokens: int) -> str:
    """Return a table, a row per code, with the change of perplexity and the divergence from the float model."""
    model, tokenizer = load(find_source(None))
    model.set_attn_implementation("sdpa")
    ids = encode(tokenizer, english_text())
    half = len(ids) // 2
    calibration, unseen = cut_windows(ids[:half], CONTEXT, half), cut_windows(ids[half:], CONTEXT, tokens)
    found = ranges(model, calibration)
    codes = {name: fixed(found, calibration.numel(), *setting) for name, setting in FIXED.items()}
    codes |= {name: ours(*setting) for name, setting in OURS.items()}
    rows = ["| code of the five sites | perplexity | KL |", "|---|---:|---:|"]
    for name, code in codes.items():
        rows.append(f"| {name} | {' | '.join(compared(model, with_code(model, code), unseen))} |")
        _CONSOLE.print(rows[-1])
    return (
        f"SmolLM2-135M, {unseen.numel():,} tokens of the embedded text's second half, context {CONTEXT}; the fixed "
        f"steps are calibrated on {calibration.numel():,} tokens of the first half. {machine()}\n\n" + "\n".join(rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    text = table(arguments.tokens)
    print(text)
    if arguments.write:
        pages.write("docs/whole-figures.md", "sites", text)


if __name__ == "__main__":
    main()
