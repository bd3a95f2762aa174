"""Measure a model that SpikingJelly converts, with its operators and ours: `python benchmarks/spikingjelly_models.py`.

The model has the weights of SmolLM2 in Qwen2's code: that is LLaMA's with biases of q, k and v, which are 0 here.
SpikingJelly's Qwen2SNNRecipe converts it, with the setting that it publishes for Qwen2.5-0.5B. The rows:

its own operators  float softmax, norms and SiLU. Summed once: by `sum_once` with the rotary cosine alone of ours
ours               spiking ones, by `spikeplug.convert(snn)`
whole              `spikeplug.convert(model, recipe="whole")` of the float model, without SpikingJelly

Evaluated at each of T steps, a model is slow: these rows read one short window, and show how far their logits are from
those of the same operators summed once. All rows are timed on that window, in turns.

Runs in an environment of its own (`make figures-spikingjelly`). --write puts the table into docs/pipelines.md.
"""

from __future__ import annotations

import argparse
import copy
import time
from statistics import median
from types import SimpleNamespace
from typing import Any

import pages
import torch
from rich.console import Console
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.ann2snn import ModuleConverter, Qwen2SNNConfig, Qwen2SNNRecipe, calibrate_qwen2_snn
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM
from whole import compared, machine

import spikeplug
from spikeplug.conversion.whole.calibration import text_tokens
from spikeplug.english import english_text
from spikeplug.measurement.loading import find_source, load
from spikeplug.measurement.text import cut_windows, encode

#: What SpikingJelly publishes for Qwen2.5-0.5B.
SETTING = {"time_steps": 160, "calibration_levels": 16, "calibration_quantile": 0.999}
_CONSOLE = Console()


def as_qwen2(llama: Any) -> Qwen2ForCausalLM:
    """Return a Qwen2 with the weights of a LLaMA, and biases of 0: the same function.

    Raises ValueError if the logits differ by more than rounding.
    """
    config = llama.config
    kept = (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
        " rms_norm_eps max_position_embeddings tie_word_embeddings rope_parameters bos_token_id eos_token_id"
    )
    model = Qwen2ForCausalLM(Qwen2Config(**{name: getattr(config, name) for name in kept.split()})).eval()
    missing, unexpected = model.load_state_dict(llama.state_dict(), strict=False)
    if unexpected or not all(name.endswith("proj.bias") for name in missing):
        raise ValueError(f"the weights do not fit Qwen2: {missing}, {unexpected}")
    with torch.no_grad():
        for name in missing:
            model.get_parameter(name).zero_()
        ids = torch.arange(32)[None]
        if not torch.allclose(model(ids).logits, llama(ids).logits, atol=1e-3):
            raise ValueError("the Qwen2 is not the LLaMA whose weights it has")
    return model


def spiking(model: nn.Module, windows: Tensor) -> nn.Module:
    """Return what SpikingJelly makes of a Qwen2, calibrated on windows (windows, tokens)."""
    config = Qwen2SNNConfig(**SETTING)
    batches = ({"input_ids": window[None], "attention_mask": torch.ones_like(window[None])} for window in windows)
    recipe = Qwen2SNNRecipe(calibrate_qwen2_snn(model, batches, config), config)
    snn: Any = ModuleConverter(recipe=recipe).convert(model)
    snn.set_collect_statistics(False)
    return snn


class Arm:
    """One row: a model made spiking while it runs.

    model    what SpikingJelly made, or a float model
    options  those of `spikeplug.convert`; None: the model stays as it is
    """

    def __init__(self, model: Any, options: dict[str, Any] | None) -> None:
        self.model, self.options = model, options

    def __call__(self, ids: Tensor) -> tuple[Tensor, float]:
        """Return the logits of token ids (tokens,), and the seconds that the run took."""
        functional.reset_net(self.model)
        if self.options is not None:
            spikeplug.convert(self.model, **self.options)
        with torch.inference_mode():
            start = time.perf_counter()
            logits = self.model(ids[None]).logits[0].double()
            seconds = time.perf_counter() - start
        if self.options is not None:
            spikeplug.revert(self.model)
        return logits, seconds


def table(tokens: int, context: int, short: int, turns: int) -> str:
    """Return a table, a row per arm: change of perplexity and divergence from the float model, and time.

    short  tokens of the window that all rows are timed on, `turns` times
    """
    llama, tokenizer = load(find_source(None))
    model = as_qwen2(llama)
    ids = encode(tokenizer, english_text())
    half = len(ids) // 2
    calibration, unseen = cut_windows(ids[:half], context, 8 * context), cut_windows(ids[half:], context, tokens)
    snn = spiking(model, calibration)
    whole = copy.deepcopy(model)
    spikeplug.convert(whole, recipe="whole", calibration=text_tokens(tokenizer))
    arms = {
        "its own operators, at each step": Arm(snn, None),
        "its own operators, summed once": Arm(snn, {"sum_once": True, "operators": ("cos",)}),
        "ours, at each step": Arm(snn, {"strict": True}),
        "ours, summed once": Arm(snn, {"sum_once": True, "strict": True}),
        "whole, without SpikingJelly": Arm(whole, None),
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    logits = {}
    for _ in range(turns):
        for name, arm in arms.items():
            logits[name], taken = arm(unseen[0, :short])
            seconds[name].append(taken)
            _CONSOLE.print(name, f"{taken:.0f} s")
    rows = ["| | perplexity | KL | time |", "|---|---:|---:|---:|"]
    for name, arm in arms.items():
        ratio = median(taken / own for taken, own in zip(seconds[name], next(iter(seconds.values())), strict=True))
        if name.endswith("at each step"):
            other = logits[name.replace("at each step", "summed once")]
            error = (logits[name] - other).abs().max() / other.abs().max()
            cells = [f"logits within {error:.1e} of the next row's", ""]
        else:
            cells = compared(model, lambda given, arm=arm: SimpleNamespace(logits=arm(given[0])[0][None]), unseen)
        rows.append(f"| {name} | {' | '.join(cells)} | {ratio:.2f} |")
        _CONSOLE.print(rows[-1])
    return (
        f"SmolLM2-135M as a Qwen2, SpikingJelly 2.0.0, T = {SETTING['time_steps']}, step = "
        f"{SETTING['calibration_quantile']} quantile / {SETTING['calibration_levels']}, calibrated on "
        f"{calibration.numel():,} tokens of the embedded text's first half. Change of perplexity and divergence from "
        f"the float model on {unseen.numel():,} tokens of the second half, context {context}; time on {short} tokens, "
        f"ratio to the first row, median of {turns} in turns. {machine()}\n\n" + "\n".join(rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--short", type=int, default=32, help="tokens that all rows are timed on")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    text = table(arguments.tokens, arguments.context, arguments.short, arguments.turns)
    print(text)
    if arguments.write:
        pages.write("docs/pipelines.md", "models", text)


if __name__ == "__main__":
    main()
