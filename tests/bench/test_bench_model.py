"""A layer and a whole model: which arms there are, what is run for them, and the contract of what is not timed."""

from __future__ import annotations

import pytest
import torch
from kernels.cases import WrongKernel
from tiny_model import tiny_model

from spikeplug import kernels
from spikeplug.bench import Settings, Subject, estimates, measure, memory
from spikeplug.bench.model import SHORT, Pair

IDS = torch.arange(40)[None]
SETTINGS = Settings(("silu",), quick=True, rounds=1, arms=("copy",), sections=("layer", "model"), memory=False)


@pytest.fixture
def pair():
    return Pair(tiny_model(), IDS, quick=True)


def test_arms_by_length(pair):
    found = {(work.name, work.shape): work.names for work in pair.work()}
    bases = ("kernel", "exact", "copy")
    assert found["decoder layer", "8 tokens"] == found["prefill", "8 tokens"] == (*bases, "closed", "simulated")
    assert found["decoder layer", "32 tokens"] == found["decode", "after 32 tokens"] == (*bases, "closed")
    assert ("decode", "after 8 tokens") not in found
    long = Pair(tiny_model(), torch.arange(240)[None], quick=False)
    long.lengths = [128, 200]
    assert {work.length: work.names for work in long.work() if work.name == "prefill"}[200] == bases
    assert {work.section for work in pair.work(("layer",))} == {"layer"}


def test_a_layer_is_given_what_the_model_gives_it_and_the_rest_is_not_run(pair):
    ran = []
    for model in (pair.exact, pair.converted):
        model.model.layers[1].register_forward_pre_hook(lambda *given: ran.append(given))
    work = pair.work(("layer",))[0]
    with torch.inference_mode():
        arms = work.make(work.length, work.names)
        output = arms["exact"]()
        assert not ran
        states = pair.exact(input_ids=IDS[:, :SHORT], output_hidden_states=True).hidden_states
    assert ran
    assert torch.equal(output, states[1])


def test_a_run_with_few_arms_keeps_the_contract(monkeypatch):
    subject = Subject(tiny_model(), IDS, "tiny", None)
    rows = measure(SETTINGS, subject)
    assert {row.arm for row in rows} == {"kernel", "exact", "copy"}
    assert {row.name for row in rows} == {"decoder layer", "prefill", "decode"}
    assert all(row.equal and row.seconds for row in rows)
    monkeypatch.setitem(kernels.loaded("cpu"), "silu", WrongKernel())
    assert [(row.name, row.equal) for row in measure(SETTINGS, subject)] == [("prefill and decode", False)]


def test_peaks_of_prefills_reach_their_rows(monkeypatch):
    monkeypatch.setattr(memory, "model_peaks", lambda given, lengths, arm, threads: [float(n) for n in lengths])
    settings = Settings(("silu",), quick=True, rounds=1, sections=("model",))
    rows = measure(settings, Subject(tiny_model(), IDS, "tiny", None))
    found = {(row.name, row.shape, row.arm): row.peak_mib for row in rows if row.peak_mib is not None}
    arms, lengths = ("kernel", "exact"), (8, 32)
    assert found == {("prefill", f"{length} tokens", arm): length for arm in arms for length in lengths}


def test_longer_work_is_expected_to_take_longer(pair):
    seconds = {(work.name, work.length): estimates.of_work(work, pair, SETTINGS) for work in pair.work()}
    assert seconds["decoder layer", 32] < seconds["prefill", 32]
    assert seconds["prefill", 8] < seconds["prefill", 32]
    assert estimates.of_model_peaks([8], "kernel", pair) < estimates.of_model_peaks([8, 32], "kernel", pair)
