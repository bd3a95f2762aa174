"""Cases, arms, contracts, memory: what a figure stands on."""

from __future__ import annotations

import pytest
import torch
from tiny_model import save_tiny_model

from spikeplug import kernels
from spikeplug.bench import OPERATORS, Settings, chosen, contract, failures, measure, memory
from spikeplug.bench.arms import ARMS, arms
from spikeplug.bench.cases import AXES, GROWING, Case, cases
from spikeplug.bench.growth import growths
from spikeplug.bench.results import Row
from spikeplug.bench.run import measured
from spikeplug.errors import SpikeplugError

SMALL = {
    **dict.fromkeys(("softmax", "silu", "gelu", "rms_norm", "layer_norm"), (3, 40)),
    "attention": (4, 2, 6, 6, 8),
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_all_arms_compute_the_same_operator(operator):
    case = Case("simulated", operator, SMALL[operator])
    found = arms(case)
    assert [name for name in ARMS if name in found] == list(found)
    assert ("published" in found) == (operator not in ("gelu", "layer_norm"))
    assert contract.kept(found)
    exact = found["exact"]()
    torch.testing.assert_close(found["kernel"](), exact, atol=3e-3, rtol=1e-3)
    if "published" in found:
        torch.testing.assert_close(found["published"](), exact, atol=0.05, rtol=0.05)
    for name, arm in found.items():
        one, other = arm(), arm()
        assert one.data_ptr() != other.data_ptr(), name  # each allocates its own output


@pytest.mark.parametrize("shape", [(4, 2, 1, 9, 8), (4, 2, 3, 9, 8)], ids=["decode", "the last queries"])
def test_attention_of_fewer_queries_than_keys(shape):
    found = arms(Case("operators", "attention", shape))
    assert contract.kept(found)
    torch.testing.assert_close(found["kernel"](), found["exact"](), atol=3e-3, rtol=1e-3)


def test_inputs_are_the_same_each_time():
    case = Case("operators", "layer_norm", (2, 5))
    for one, other in zip(case.inputs(), case.inputs(), strict=True):
        assert torch.equal(one, other)


def test_the_shapes_of_both_models_are_measured():
    full = cases(OPERATORS, quick=False)
    assert {case.operator for case in full if case.section == "simulated"} == set(OPERATORS)
    assert {case.model for case in full if case.section == "operators"} == {"SmolLM2", "LLaMA-3-8B"}
    shapes = {(case.operator, case.shape) for case in full}
    assert {("softmax", (4608, 2048)), ("silu", (512, 14336)), ("attention", (32, 8, 1, 2048, 128))} <= shapes
    growing = {(case.operator, case.axis) for case in full if case.section == "growth"}
    assert growing == set(AXES)
    assert {operator for operator, _ in growing} == set(GROWING)
    assert all(-1 not in case.shape for case in full)


def test_names_are_checked():
    assert chosen(None) == chosen("all") == OPERATORS
    assert chosen("silu, gelu") == ("silu", "gelu")
    for wrong in ("sofmax", "", "silu,silu"):
        with pytest.raises(SpikeplugError):
            chosen(wrong)
    with pytest.raises(SpikeplugError, match="at least 1"):
        Settings(("silu",), rounds=0)


def wrong_kernel(x, config):
    return torch.zeros_like(x)


def test_a_wrong_kernel_has_no_figure(monkeypatch):
    monkeypatch.setitem(kernels.loaded("cpu"), "silu", wrong_kernel)
    rows = measured(Case("operators", "silu", (2, 16)), Settings(("silu",), quick=True, rounds=1, memory=False))
    assert len(rows) == 1
    assert rows == failures(rows)
    values = rows[0]
    assert (values.arm, values.equal) == ("kernel", False)
    assert [values.seconds, values.times_exact, values.times_copy, values.rounds, values.peak_mib] == [None] * 5


def test_outputs_are_compared_in_every_bit():
    x = torch.tensor([1.0, 2.0])
    assert contract.same(x, x.clone())
    assert not contract.same(x.nextafter(torch.tensor(9.0)), x)
    assert not contract.same(x.double(), x)
    assert not contract.same(x[:1], x)


def test_a_quick_run_of_one_operator():
    told = []
    settings = Settings(("rms_norm",), quick=True, rounds=2, memory=False)
    rows = measure(settings, progress=lambda *given: told.append(given))
    assert {row.section for row in rows} == {"operators", "simulated", "growth"}
    assert all(row.equal and row.seconds and row.times_exact_low <= row.times_exact_high for row in rows)
    assert [row.times_exact for row in rows if row.arm == "exact"] == [1.0] * 4
    assert told[0][1] == 0
    assert told[-1][1] == told[-1][2]
    assert all(growth.exponent is None for growth in growths(rows))


def test_growth_goes_by_operator_axis_and_arm():
    def row(size, seconds, arm):
        return Row("growth", "softmax", "", "", "length", size, arm, True, 3, seconds, 1.0, 1.0, 1.0, 1.0)

    found = growths([row(10, 1.0, "kernel"), row(20, 4.0, "kernel"), row(10, 1.0, "exact"), row(20, 2.0, "exact")])
    assert {growth.arm: round(growth.exponent, 6) for growth in found} == {"kernel": 2.0, "exact": 1.0}
    assert found[0].what == "scores of a row"


def test_peak_memory_is_that_of_a_fresh_process():
    found = memory.peak(Case("operators", "silu", (4096, 1024)), "copy", 1)
    assert found is None or 15.0 <= found <= 40.0  # 16 MiB


def test_a_process_that_fails_is_told_of():
    with pytest.raises(SpikeplugError, match="ended early"):
        memory.peak(Case("operators", "silu", (1, 1)), "no such arm", 1)


def test_a_process_that_fails_costs_no_other_figure(monkeypatch):
    def failing(case, arm, threads):
        if arm == "exact":
            raise SpikeplugError("it ended early; free some memory.")
        return 1.5

    monkeypatch.setattr(memory, "peak", failing)
    with pytest.warns(RuntimeWarning, match="free some memory"):
        rows = measured(Case("operators", "gelu", (2, 16)), Settings(("gelu",), quick=True, rounds=1))
    assert {row.arm: row.peak_mib for row in rows} == {"kernel": 1.5, "exact": None, "copy": 1.5, "closed": 1.5}
    assert all(row.seconds for row in rows)


def test_peak_memory_of_a_prefill(tmp_path):
    found = memory.model_peak(str(save_tiny_model(tmp_path)), 64, "kernel", 1)
    assert found is None or 0.0 <= found <= 100.0
