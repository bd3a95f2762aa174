"""Test that prepared weights compute what the model computes, for every architecture of the conformance table."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spikeplug.conversion.norms import Norm, find_norm
from spikeplug.errors import SpikeplugError
from spikeplug.weights import Prepared, prepare, rotate_online
from spikeplug.weights.preparing import TOLERANCE

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from architectures import ARCHITECTURES
from small_models import Architecture, main_output

#: Nothing of these folds: what reads or writes their layers is not a module of torch.
NOTHING = {"torch.nn.TransformerEncoder", "torch.nn.Transformer"}


def norms_of(model: nn.Module) -> dict[str, Norm]:
    known: dict[object, Norm | None] = {}
    found = {path: find_norm(module, known) for path, module in model.named_modules()}
    return {path: norm for path, norm in found.items() if norm is not None}


def named(name: str) -> Architecture:
    (architecture,) = (each for each in ARCHITECTURES if each.name == name)
    return architecture


def rebuilt(model: nn.Module, prepared: Prepared) -> nn.Module:
    """Return a copy of the model that really has the new weights."""
    model = copy.deepcopy(model)
    weights = dict(prepared.weights)
    for name, weight in weights.items():
        owner, _, kind = name.rpartition(".")
        setattr(model.get_submodule(owner), kind, nn.Parameter(weight))
    for path, norm in prepared.norms.items():
        model.get_submodule(path).forward = norm.exact
    for path, block in prepared.online.items():
        model.get_submodule(path).register_forward_pre_hook(
            lambda _, args, block=block: (rotate_online(args[0], block), *args[1:])
        )
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_outputs_stay(architecture: Architecture) -> None:
    model = architecture.build()
    prepared = prepare(model, norms_of(model), inputs=architecture.inputs())
    assert prepared.error <= TOLERANCE
    # The structure alone is right about each of them; the check leaves nothing out.
    assert not any("is left as it is" in sentence for sentence in prepared.kept)
    assert bool(prepared.weights) or architecture.name in NOTHING


@pytest.mark.parametrize("name", ["Llama 3", "Gemma", "GPT-2", "Phi-3", "Whisper", "ViT", "Mamba"])
@torch.no_grad()
def test_a_model_with_the_new_weights_gives_the_same(name: str) -> None:
    architecture = named(name)
    model, inputs = architecture.build(), architecture.inputs()
    expected = main_output(model(**inputs))
    found = main_output(rebuilt(model, prepare(model, norms_of(model), inputs=inputs))(**inputs))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_a_layer_norm_becomes_an_rms_norm() -> None:
    model = named("GPT-2").build()
    prepared = prepare(model, norms_of(model))
    assert {norm.operator for norm in prepared.norms.values()} == {"rms_norm"}
    assert prepared.made == ("lm_head.bias",)
    assert prepared.untied == (("transformer.wte.weight", "lm_head.weight"),)
    # Its writers have the mean 0 before they are rotated, so no channel is left along which all are constant.
    plain = prepare(model, norms_of(model), rotate=False)
    assert {norm.operator for norm in plain.norms.values()} == {"layer_norm"}
    assert plain.rotated == {}


def test_the_model_is_not_touched() -> None:
    model = named("Llama 3").build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = prepare(model, norms_of(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert prepared.rotated["model.embed_tokens"] == "model.embed_tokens"
    assert len(prepared.weights) == len(list(prepared.weights))
    assert "model.norm.weight" not in prepared.weights
    first, second = (prepared.weights["lm_head.weight"] for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.float32
    with pytest.raises(KeyError):
        prepared.weights["model.norm.weight"]


def test_half_precision_weights_come_as_float32() -> None:
    model = named("Llama 3").build().bfloat16()
    prepared = prepare(model, norms_of(model))
    assert prepared.error <= TOLERANCE
    assert prepared.weights["lm_head.weight"].dtype == torch.float32


def test_tied_weights_that_change_alike_stay_tied() -> None:
    """T5's encoder and decoder share an embedding; both rotate alike, but the head turns on its other side."""
    model = named("T5").build()
    prepared = prepare(model, norms_of(model), inputs=named("T5").inputs())
    left, right = (prepared.weights[f"{side}.embed_tokens.weight"] for side in ("encoder", "decoder"))
    assert torch.equal(left, right)


def test_what_fails_the_check_is_left_and_named() -> None:
    """A wrong record of one norm spoils its gain, and the rotation of its stream, and nothing else."""
    model = named("Llama 3").build()
    norms = norms_of(model)
    wrong = "model.layers.1.input_layernorm"
    norms[wrong] = Norm("rms_norm", 1e-6, "weight", offset=1.0)
    prepared = prepare(model, norms)
    assert prepared.error <= TOLERANCE
    assert wrong not in prepared.norms
    assert "model.norm" in prepared.norms
    assert prepared.rotated == {}
    left = [sentence for sentence in prepared.kept if "is left as it is" in sentence]
    assert len(left) == 2
    assert left[0].startswith(f"gain {wrong}")


def test_damaged_weights_are_named() -> None:
    model = named("Llama 3").build()
    with torch.no_grad():
        model.lm_head.weight[3, 5] = float("inf")
    with pytest.raises(SpikeplugError, match=r"lm_head\.weight holds NaN or infinity"):
        prepare(model, norms_of(model))


def test_a_model_that_float64_does_not_run() -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.RMSNorm(8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            if x.dtype == torch.float64:
                raise TypeError("only float32")
            return self.head(self.norm(x))

    prepared = prepare(Narrow(), {"norm": Norm("rms_norm", 1e-6, "weight")}, inputs={"x": torch.ones(2, 8)})
    assert prepared.kept == ("Nothing folds: the model cannot be checked in float64 (TypeError: only float32).",)
    assert len(prepared.weights) == len(prepared.norms) == 0


@pytest.mark.parametrize(("online", "block"), [(0, None), (4, 4), (16, 16), (47, 16), (48, 48), (4096, 48)])
def test_the_size_of_online_transforms(online: int, block: int | None) -> None:
    """The down projection has 48 = 12·4 inputs: all of them turn, or blocks of a power of four."""
    model = named("Llama 3").build()
    prepared = prepare(model, norms_of(model), online=online)
    assert set(prepared.online.values()) == ({block} if block else set())
    assert prepared.error <= TOLERANCE
