"""Cases, arms, contracts, memory: what a figure stands on."""

from __future__ import annotations

import pytest
import torch
from kernels.cases import WrongKernel

from spikeplug import kernels
from spikeplug.bench import ARMS, OPERATORS, SECTIONS, Settings, chosen, contract, estimates, failures, measure
from spikeplug.bench.arms import arms
from spikeplug.bench.cases import AXES, GROWING, Case, cases
from spikeplug.bench.results import Row, growths
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
    assert [name for name in ARMS if name in found] == list(found) == list(case.arms)
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
    assert chosen("copy,exact", ARMS, "arm") == ("copy", "exact")
    with pytest.raises(SpikeplugError, match="no section 'layers' to measure; choose out of operators, simulated"):
        chosen("layers", SECTIONS, "section")
    with pytest.raises(SpikeplugError, match="at least 1"):
        Settings(("silu",), rounds=0)
    for sections in ((), ("growth",)):  # SiLU does not grow
        with pytest.raises(SpikeplugError, match="nothing to measure of silu"):
            Settings(("silu",), sections=sections)


def test_a_wrong_kernel_has_no_figure(monkeypatch):
    monkeypatch.setitem(kernels.loaded("cpu"), "silu", WrongKernel())
    rows = measured(Case("operators", "silu", (2, 16)), Settings(("silu",), quick=True, rounds=1, memory=False))
    assert len(rows) == 1
    assert rows == failures(rows)
    values = rows[0]
    assert (values.arm, values.equal) == ("kernel", False)
    assert [values.seconds, values.times_exact, values.times_copy, values.rounds, values.peak_mib] == [None] * 5


@pytest.mark.parametrize("chosen_arms", [(), ("copy",), ("published", "exact")], ids=str)
def test_arms_that_are_not_timed_still_bind(chosen_arms, monkeypatch):
    case = Case("simulated", "silu", (2, 16))
    settings = Settings(("silu",), quick=True, rounds=1, memory=False, arms=chosen_arms)
    rows = measured(case, settings)
    assert [row.arm for row in rows] == [arm for arm in ARMS if arm in {"kernel", "exact", *chosen_arms}]
    assert all((row.times_copy is None) == ("copy" not in chosen_arms) for row in rows)
    monkeypatch.setitem(kernels.loaded("cpu"), "silu", WrongKernel())
    assert [row.equal for row in measured(case, settings)] == [False]


def test_a_section_alone():
    settings = Settings(("silu", "rms_norm"), quick=True, rounds=1, sections=("growth",))
    assert {(case.section, case.operator) for case in settings.cases} == {("growth", "rms_norm")}
    assert not settings.of_models
    assert {row.section for row in measure(settings)} == {"growth"}


def test_less_work_is_expected_to_take_less_time():
    case, small = Case("operators", "silu", (2048, 1536)), Case("operators", "silu", (2, 1536))
    seconds = [
        estimates.of_case(case, Settings(("silu",), rounds=rounds, arms=names))
        for rounds, names in ((21, ARMS), (21, ("closed",)), (21, ()), (3, ()))
    ]
    assert seconds == sorted(seconds, reverse=True)
    assert len(set(seconds)) == len(seconds)
    assert estimates.of_case(small, Settings(("silu",))) < estimates.of_case(case, Settings(("silu",)))
    assert estimates.of_peaks([small], "kernel") < estimates.of_peaks([small, case], "kernel")


def test_outputs_are_compared_in_every_bit():
    x = torch.tensor([1.0, 2.0])
    assert contract.same(x, x.clone())
    assert not contract.same(x.nextafter(torch.tensor(9.0)), x)
    assert not contract.same(x.double(), x)
    assert not contract.same(x[:1], x)


def test_a_quick_run_of_one_operator():
    seen = []
    settings = Settings(("rms_norm",), quick=True, rounds=2, memory=False)
    rows = measure(settings, progress=lambda *given: seen.append(given))
    assert {row.section for row in rows} == {"operators", "simulated", "growth"}
    assert all(row.equal and row.seconds and row.times_exact_low <= row.times_exact_high for row in rows)
    assert [row.times_exact for row in rows if row.arm == "exact"] == [1.0] * 4
    assert seen[0][1] == 0
    assert seen[-1][1] == seen[-1][2]
    assert all(growth.exponent is None for growth in growths(rows))


def test_growth_goes_by_operator_axis_and_arm():
    def row(size, seconds, arm):
        return Row("growth", "softmax", "", "", "length", size, arm, True, 3, seconds, 1.0, 1.0, 1.0, 1.0)

    found = growths([row(10, 1.0, "kernel"), row(20, 4.0, "kernel"), row(10, 1.0, "exact"), row(20, 2.0, "exact")])
    assert {growth.arm: round(growth.exponent, 6) for growth in found} == {"kernel": 2.0, "exact": 1.0}
    assert found[0].what == "scores of a row"
