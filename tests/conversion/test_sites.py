"""Sites of converted models: derived from a run, each coded or exact by itself, on any architecture."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from tiny_model import tiny_model

import spikeplug
from spikeplug.conversion.sites import Site, coding, find_sites
from spikeplug.conversion.whole.plan import unrounded
from spikeplug.errors import SpikeplugError
from spikeplug.operators.linear.linear import seen
from spikeplug.operators.linear.quantise import quantise
from spikeplug.primitives.arithmetic import Closed

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from architectures import ARCHITECTURES

IDS = torch.arange(5, 45)[None]


@pytest.fixture(scope="module")
def pair():
    exact = tiny_model()
    whole = copy.deepcopy(exact)
    spikeplug.convert(whole, recipe="whole", calibration=IDS)
    return exact, whole


def logits(model):
    with torch.inference_mode():
        return model(IDS, use_cache=False).logits


@pytest.mark.parametrize(
    "name",
    ["Llama 3", "Mixtral", "GPT-2", "GPT-J", "Bloom", "Gemma 2", "DeepSeek-V3", "Mamba", "T5", "wav2vec 2.0", "CLIP"],
)
def test_nothing_coded_is_the_exact_model_and_everything_coded_the_converted_one(name: str) -> None:
    (architecture,) = (each for each in ARCHITECTURES if each.name == name)
    exact, inputs = architecture.build(), architecture.inputs()
    whole = copy.deepcopy(exact)
    spikeplug.convert(whole, recipe="whole", calibration=inputs)
    with torch.no_grad():
        groups = find_sites(whole, lambda: whole(**inputs))
        weights = unrounded(exact, whole, inputs)
        expected, converted = (architecture.output(model(**inputs)) for model in (exact, whole))
        with coding(whole, lambda site, path: False, weights):
            nothing = architecture.output(whole(**inputs))
        sites = frozenset().union(*(group.sites for group in groups))
        with coding(whole, lambda site, path: site in sites, weights):
            everything = architecture.output(whole(**inputs))
        again = architecture.output(whole(**inputs))
    assert torch.equal(everything, converted)
    assert torch.equal(again, converted)
    largest = expected.abs().max()
    assert (nothing - expected).abs().max() <= 2e-5 * largest  # float32 of folded weights
    assert (converted - expected).abs().max() > 2e-3 * largest
    assert len({group.name for group in groups}) == len(groups)
    assert sum(len(group.sites) for group in groups) == len(sites)  # no site in two groups


def test_sites_are_named_by_operator_and_module(pair) -> None:
    _, whole = pair
    found = find_sites(whole, lambda: logits(whole))
    attention, mlp = "model.layers.*.self_attn", "model.layers.*.mlp"
    parts = ("linear input", "linear weight", "linear output")
    assert [(group.what, group.where) for group in found] == [
        ("embedding weight", "model.embed_tokens"),
        ("rotary", "model.rotary_emb"),
        ("rms_norm", "model.layers.*.input_layernorm"),
        *((part, f"{attention}.{{q_proj,k_proj,v_proj}}") for part in parts),
        ("multiply", attention),
        ("add", attention),
        ("quantise query", attention),
        ("quantise key", attention),
        ("quantise value", attention),
        ("attention", attention),
        *((part, f"{attention}.o_proj") for part in parts),
        ("add", "model.layers.*"),
        ("rms_norm", "model.layers.*.post_attention_layernorm"),
        *((part, f"{mlp}.{{gate_proj,up_proj}}") for part in parts),
        ("silu", f"{mlp}.act_fn"),
        ("multiply", mlp),
        *((part, f"{mlp}.down_proj") for part in parts),
        ("rms_norm", "model.norm"),
        *((part, "lm_head") for part in parts),
    ]


def test_layers_that_no_run_reaches_are_sites_all_the_same(pair) -> None:
    _, whole = pair
    found = find_sites(whole, lambda: None)
    assert {group.where for group in found} >= {"model.embed_tokens", "model.layers.*.mlp.down_proj", "lm_head"}
    assert {group.what for group in found} == {"embedding weight", "linear input", "linear weight", "linear output"}


def test_one_part_of_one_layer(pair) -> None:
    """The head, by hand: its weight, then its input, then its output is coded, and nothing else."""
    exact, whole = pair
    weights = unrounded(exact, whole)
    head, how = whole.lm_head, (256, 0, 0)
    normed = []
    for part in ("weight", "input", "output"):
        handle = head.register_forward_pre_hook(lambda _, args: normed.append(args[0].clone()))
        with coding(whole, lambda site, path, part=part: site == Site("linear", "lm_head", part), weights):
            found = logits(whole)
        handle.remove()
        x, rows = normed[-1], weights["lm_head"]
        if part == "weight":
            numbers = (head.weight.to(torch.int32) * head.weight_threshold[:, None]).to(torch.float32)
            rows = torch.ldexp(numbers, head.weight_unit)
        elif part == "input":
            x = seen(x, *how, on=Closed(spikeplug.Numerics(), "linear"))
        y = x @ rows.T
        if part == "output":
            step = torch.exp2(y.abs().amax(-1, keepdim=True).log2().floor() - 15)
            y = (y / step).round() * step
        torch.testing.assert_close(found, y, rtol=1e-5, atol=1e-5)


def test_one_layer_alone(pair) -> None:
    """Before it, the residual stream is the exact one; after it, it is not."""
    exact, whole = pair
    weights, streams = unrounded(exact, whole), []
    for chosen in ("no layer", "model.layers.1."):
        kept = []
        handles = [
            layer.register_forward_hook(lambda *a, kept=kept: kept.append(a[2].clone())) for layer in whole.model.layers
        ]
        with coding(whole, lambda site, path, chosen=chosen: path.startswith(chosen), weights):
            logits(whole)
        for handle in handles:
            handle.remove()
        streams.append(kept)
    assert torch.equal(streams[0][0], streams[1][0])
    assert not torch.equal(streams[0][1], streams[1][1])


@pytest.mark.parametrize(("block", "rotation"), [(0, 0), (16, 0), (0, 16), (32, 64)])
def test_the_input_of_a_layer_is_what_quantise_gives(block: int, rotation: int) -> None:
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 40)[:, None]
    on = Closed(spikeplug.Numerics(), "linear")
    assert torch.equal(seen(x, 31, block, rotation, on), quantise(x, 31, block, rotation, on=on))


def test_the_recipe_operators_has_sites_too() -> None:
    exact = tiny_model()
    converted = copy.deepcopy(exact)
    spikeplug.convert(converted)
    groups = find_sites(converted, lambda: logits(converted))
    assert {group.what for group in groups} == {"attention", "silu", "rms_norm", "cos", "sin"}
    own = logits(converted)
    with coding(converted, lambda site, path: True):
        assert torch.equal(logits(converted), own)
    with coding(converted, lambda site, path: False):
        nothing = logits(converted)
    assert not torch.equal(nothing, own)
    torch.testing.assert_close(nothing, logits(exact), rtol=1e-5, atol=1e-5)


def test_weights_of_a_folder_come_from_the_original(pair, tmp_path) -> None:
    exact, whole = pair
    whole.save_pretrained(tmp_path)
    loaded = type(exact).from_pretrained(tmp_path)
    found, expected = unrounded(exact, loaded), unrounded(exact, whole)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[path], expected[path]) for path in found)
    with pytest.raises(SpikeplugError, match=r"the integers of model\.\S+ do not stand for its weight"):
        unrounded(tiny_model(seed=1), loaded)
