"""`spikeplug.explain`: which kernel runs where in a converted model, and why not."""

from __future__ import annotations

import json

import pytest
import torch
from rich.console import Console
from tiny_models import tiny_model, tokens
from torch import nn
from transformers import PreTrainedModel

import spikeplug
from spikeplug import kernels
from spikeplug import nn as spiking
from spikeplug.errors import SpikeplugError

IDS = tokens(1, 5)


def converted(**how: object) -> PreTrainedModel:
    model = tiny_model()
    spikeplug.convert(model, **how)
    return model


def test_every_operator_is_named_with_its_kernel_where_it_runs() -> None:
    found = spikeplug.explain(converted(), {"input_ids": IDS})
    norms = ("input_layernorm", "post_attention_layernorm")
    assert {(entry.path, entry.operator): entry.calls for entry in found.entries} == {
        ("model.rotary_emb", "cos"): 1,
        ("model.rotary_emb", "sin"): 1,
        ("model.norm", "rms_norm"): 1,
        **{(f"model.layers.{i}.self_attn", "attention"): 1 for i in range(2)},
        **{(f"model.layers.{i}.mlp.act_fn", "silu"): 1 for i in range(2)},
        **{(f"model.layers.{i}.{norm}", "rms_norm"): 1 for i in range(2) for norm in norms},
    }
    for entry in found.entries:
        assert (entry.device, entry.dtype) == ("cpu", "float32")
        assert (entry.kernel, entry.reason) == (f"Numba {entry.operator}", "")


def test_other_numerics_are_a_reason() -> None:
    found = spikeplug.explain(converted(numerics="narrow"), (IDS,))
    assert {entry.kernel for entry in found.entries} == {"closed form"}
    assert {entry.reason for entry in found.entries} == {"the numerics have input_bits=8; kernels take None"}


def test_another_dtype_is_a_reason() -> None:
    found = spikeplug.explain(converted().double(), IDS)
    reasons = {(entry.operator, entry.dtype): entry.reason for entry in found.entries}
    assert reasons["silu", "float64"] == "kernels take float32, bfloat16 and float16, not float64"
    assert reasons["attention", "float64"] == reasons["silu", "float64"]


def test_that_closed_forms_were_asked_for_is_a_reason() -> None:
    with kernels.closed_forms():
        found = spikeplug.explain(converted(), IDS)
    assert {(entry.kernel, entry.reason) for entry in found.entries} == {("closed form", "closed forms were asked for")}


def test_an_operator_without_a_kernel_is_a_reason() -> None:
    found = spikeplug.explain(nn.Sequential(spiking.Tanh(), spiking.SiLU()), torch.randn(2, 5))
    assert [(entry.path, entry.kernel, entry.reason) for entry in found.entries] == [
        ("0", "closed form", "tanh has no kernel on cpu"),
        ("1", "Numba silu", ""),
    ]


def test_what_is_shown() -> None:
    found = spikeplug.explain(converted(), IDS)
    assert str(found) == "1 Numba cos, 1 Numba sin, 5 Numba rms_norm, 2 Numba attention, 2 Numba silu"
    assert json.loads(json.dumps(found.to_dict()))["entries"][0]["kernel"] == "Numba cos"
    shown = Console(width=160)
    with shown.capture() as captured:
        shown.print(found.table())
    assert "model.layers.*.mlp.act_fn (2)" in captured.get()
    assert "float32 on cpu" in captured.get()
    narrow = spikeplug.explain(converted(numerics="narrow"), IDS)
    assert "closed form (the numerics have input_bits=8; kernels take None)" in str(narrow)


def test_a_run_leaves_nothing_behind() -> None:
    model = converted()
    found = spikeplug.explain(model, IDS)
    model(IDS)
    assert spikeplug.explain(model, IDS) == found
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_is_not_converted_is_refused_with_the_remedy() -> None:
    with pytest.raises(SpikeplugError, match=r"LlamaForCausalLM is not converted: call spikeplug\.convert"):
        spikeplug.explain(tiny_model(), IDS)
    with pytest.raises(SpikeplugError, match="give it a converted model"):
        spikeplug.explain("model", IDS)  # type: ignore[arg-type]


def test_other_inputs_are_refused_with_the_remedy() -> None:
    with pytest.raises(SpikeplugError, match="a mapping of keyword arguments, a tuple or a tensor, not a list"):
        spikeplug.explain(converted(), [IDS])  # type: ignore[arg-type]
