"""Test that the report accounts for every place, folds the layers and survives JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tiny_models import tiny_model

from spikeplug.conversion import Entry, Report, convert
from spikeplug.conversion.report import fold_layers


def test_counts_and_reasons() -> None:
    report = convert(tiny_model("qwen3"), operators=("attention", "rms_norm"), exclude=r"layers\.0\.")
    assert report.counts == {
        "attention": {"replaced": 1, "left": 1},
        "matmul": {"replaced": 0, "left": 17},
        "rms_norm": {"replaced": 5, "left": 4},
        "product": {"replaced": 0, "left": 2},
        "silu": {"replaced": 0, "left": 2},
        "cos": {"replaced": 0, "left": 1},
        "sin": {"replaced": 0, "left": 1},
    }
    reasons = {(entry.path, entry.operator): entry.reason for entry in report.left}
    assert reasons["model.layers.0.self_attn", "attention"] == r"excluded by 'layers\\.0\\.'"
    assert reasons["model.layers.1.mlp.act_fn", "silu"] == "not among the operators chosen"
    assert reasons["model.rotary_emb", "cos"] == "not among the operators chosen"
    assert "gate" in reasons["model.layers.1.mlp", "product"]
    assert all(entry.reason for entry in report.left)
    assert not any(entry.reason for entry in report.replaced)
    assert len(report.replaced) + len(report.left) == len(report.entries)
    assert {entry.operator for entry in report.left if entry.pipeline} == {"matmul", "product"}
    assert len(report.leftovers) == 1 + 4 + 2 + 2
    expected = "Qwen3ForCausalLM: 1 attention, 5 rms_norm replaced, 9 nonlinearities left in floating point"
    assert str(report) == expected


def test_the_table_does_not_grow_with_the_layers() -> None:
    small, large = (convert(tiny_model(num_hidden_layers=n)).table() for n in (2, 12))
    assert small.row_count == large.row_count < 10
    console = Console(width=140)
    with console.capture() as captured:
        console.print(large)
    assert "model.layers.*.mlp.act_fn (12)" in captured.get()
    assert "LlamaForCausalLM" in captured.get()


def test_to_dict_is_json() -> None:
    report = convert(tiny_model())
    loaded = json.loads(json.dumps(report.to_dict()))
    assert loaded["model_class"] == "LlamaForCausalLM"
    assert Report("LlamaForCausalLM", tuple(Entry(**entry) for entry in loaded["entries"])) == report
    assert loaded["counts"] == report.counts


def test_a_report_cannot_be_changed() -> None:
    report = convert(tiny_model())
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.entries = ()  # type: ignore[misc]


@given(st.dictionaries(st.integers(0, 999), st.integers(1, 5), min_size=1))
def test_layers_fold_and_counts_add_up(layers: dict[int, int]) -> None:
    folded = fold_layers({f"layers.{layer}.mlp2.w1": count for layer, count in layers.items()})
    total = sum(layers.values())
    assert folded == ("layers.*.mlp2.w1" if total == 1 else f"layers.*.mlp2.w1 ({total})")
