"""In each of two processes: converted models split by transformers' tensor parallelism, beside whole ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from exact_models import IDS, exact_model, states
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.distributed import DistributedConfig
from two_processes import save

import spikeplug
from spikeplug import Numerics
from spikeplug.presets import PRESETS

ALL = ("attention", "silu", "rms_norm")
# name -> family, the model's options, numerics, operators
CASES: dict[str, tuple[str, dict[str, Any], Numerics, tuple[str, ...]]] = {
    "heads and norms": ("qwen3", {"hidden_act": "relu"}, Numerics(), ("attention", "rms_norm")),
    "fixed step": ("llama", {}, PRESETS["paper"].numerics, ALL),
    "same scale in both parts": ("qwen3", {"gate": "twin"}, Numerics(), ALL),
    "a scale for each part": ("llama", {}, Numerics(), ALL),
}


def load(folder: Path, tensor_parallel: bool) -> PreTrainedModel:
    split = {"distributed_config": DistributedConfig(tp_size=2)} if tensor_parallel else {}
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float64", **split)


def watch_activation(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """What goes into and comes out of the first layer's activation at the next forward."""
    seen: dict[str, torch.Tensor] = {}

    def note(module: Any, inputs: Any, output: torch.Tensor) -> None:
        seen.update(input=inputs[0].detach().clone(), output=output.detach().clone())

    model.model.layers[0].mlp.act_fn.register_forward_hook(note)
    return seen


def run(model: PreTrainedModel, numerics: Numerics, operators: tuple[str, ...]) -> dict[str, Any]:
    seen = watch_activation(model)
    report = spikeplug.convert(model, numerics, operators=operators)
    found = {
        **states(model),
        "activation": dict(seen),
        "counts": {operator: report.counts[operator]["replaced"] for operator in operators},
        "generated": model.generate(IDS[:1, :6], max_new_tokens=3, do_sample=False),
    }
    found["names"] = list(model.state_dict())
    # Replicated norms of heads: each process sees the gradient of its own heads only, and must add the other's.
    model(input_ids=IDS).logits.square().mean().backward()
    norms = {name: weight.grad for name, weight in model.named_parameters() if "norm" in name}
    found["gradients"] = {name: torch.as_tensor(gradient) for name, gradient in norms.items()}
    return found


def main(folder: str) -> None:
    dist.init_process_group("gloo")
    found: dict[str, Any] = {}
    for name, (family, options, numerics, operators) in CASES.items():
        place = Path(folder) / name
        if dist.get_rank() == 0:
            exact_model(family, **options).save_pretrained(place)
        dist.barrier()
        found[name] = {
            "whole": run(load(place, False), numerics, operators),
            "split": run(load(place, True), numerics, operators),
        }
    save(found, folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
