"""Peak memory: of a process of its own, whose failure costs no other figure."""

from __future__ import annotations

import pytest
from tiny_model import save_tiny_model

from spikeplug.bench import Settings, measure, memory
from spikeplug.bench.cases import Case

MIB = 1 << 18  # of float32


def test_each_case_stands_alone():
    """A clone takes what x has, whatever was measured before it in the same process."""
    sizes = (16, 4, 16, 1)
    cases = [Case("operators", "silu", (size, MIB)) for size in sizes]
    for peak, size in zip(memory.peaks(cases, "copy", 1), sizes, strict=True):
        assert peak is None or size <= peak <= size + 1.0


def test_nothing_asked_starts_no_process(monkeypatch):
    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    assert memory.peaks([], "copy", 1) == []


def test_figures_of_before_a_failure_are_kept():
    """Of GELU there is no published recipe: the process ends there."""
    cases = [Case("operators", operator, (2, 16)) for operator in ("silu", "gelu", "silu")]
    with pytest.warns(RuntimeWarning, match=r"of published ended early .*, 2 figures are missing; free some memory"):
        found = memory.peaks(cases, "published", 1)
    assert found[1:] == [None, None]


def test_peaks_reach_their_rows(monkeypatch):
    def peaks(cases, arm, threads):
        assert {case.section for case in cases} == {"operators"}
        return [None if arm == "exact" else 1.5] * len(cases)

    monkeypatch.setattr(memory, "peaks", peaks)
    rows = measure(Settings(("gelu",), quick=True, rounds=1))
    found = {row.arm: row.peak_mib for row in rows if row.section == "operators"}
    assert found == {"kernel": 1.5, "exact": None, "copy": 1.5, "closed": 1.5}
    assert all(row.seconds for row in rows)
    assert all(row.peak_mib is None for row in rows if row.section != "operators")


def test_peak_memory_of_prefills(tmp_path):
    found = memory.model_peaks(str(save_tiny_model(tmp_path)), (8, 64), "kernel", 1)
    assert len(found) == 2
    assert all(peak is None or 0.0 <= peak <= 100.0 for peak in found)
