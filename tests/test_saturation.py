"""Saturations are counted for the process and for each scope, across threads, errors and nesting, without waiting."""

from __future__ import annotations

import asyncio
import threading

import pytest
import torch

from spikeplug import functional, saturation
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS
from spikeplug.saturation import counting, record, reset_saturations, saturations


def clamp(event, count):
    record(event, torch.ones(count, dtype=torch.bool))


def test_a_scope_counts_what_happens_inside_it():
    clamp("before", 1)
    with counting() as counts:
        assert counts == {}
        clamp("a", 2)
        clamp("b", 3)
        clamp("a", 4)
        record("never", torch.zeros(5, dtype=torch.bool))
        record("never", torch.zeros(0, dtype=torch.bool))
        assert counts == {"a": 6, "b": 3}
    clamp("after", 7)
    assert counts == {"a": 6, "b": 3}
    assert (counts["a"], len(counts), list(counts), "before" in counts) == (6, 2, ["a", "b"], False)
    assert repr(counts) == "{'a': 6, 'b': 3}"
    assert saturations() == {"a": 6, "after": 7, "b": 3, "before": 1}


def test_nested_scopes_each_count_their_own_block():
    with counting() as outer:
        clamp("x", 1)
        with counting() as inner:
            clamp("x", 2)
            with counting() as innermost:
                clamp("y", 3)
        clamp("x", 4)
    assert (outer, inner, innermost) == ({"x": 7, "y": 3}, {"x": 2, "y": 3}, {"y": 3})


def test_an_error_ends_the_scope_and_keeps_its_counts():
    def fail():
        clamp("x", 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), counting() as counts:
        fail()
    clamp("x", 2)
    assert counts == {"x": 1}
    with counting() as again:
        clamp("x", 4)
    assert (again, saturations()) == ({"x": 4}, {"x": 7})


def test_threads_count_for_themselves_and_for_the_process():
    found, barrier = {}, threading.Barrier(4)

    def work(number):
        with counting() as counts:
            barrier.wait()
            for _ in range(300):
                clamp("x", number)
            barrier.wait()
        found[number] = counts.to_dict()

    with counting() as outside:
        threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {number: {"x": 300 * number} for number in (1, 2, 3, 4)}
    assert outside == {}
    assert saturations() == {"x": 3000}


def test_tasks_of_an_event_loop_count_for_themselves():
    async def work(number):
        with counting() as counts:
            for _ in range(5):
                clamp("x", number)
                await asyncio.sleep(0)
        return counts.to_dict()

    async def both():
        return await asyncio.gather(work(1), work(2))

    assert asyncio.run(both()) == [{"x": 5}, {"x": 10}]


def test_a_reset_leaves_scopes_alone():
    with counting() as counts:
        clamp("x", 1)
        reset_saturations()
        clamp("x", 2)
    assert (counts, saturations()) == ({"x": 3}, {"x": 2})


def test_recording_never_reads_a_number_and_keeps_few_tensors(monkeypatch):
    """A number that is read makes the host wait for the device."""
    with counting() as counts, monkeypatch.context() as patch:
        for name in ("__int__", "__bool__", "__float__", "item", "tolist"):
            patch.setattr(torch.Tensor, name, lambda *_: pytest.fail("a number was read"))
        for _ in range(2000):
            clamp("x", 3)
    assert sum(map(len, counts._pending.values())) < 300
    assert len(saturation._process) < 300
    assert counts == {"x": 6000}


def test_an_operator_reports_to_the_scope():
    x = torch.tensor([[30.0, -30.0, 1.0]])
    with counting() as counts:
        functional.silu(x, numerics=PRESETS["paper"].numerics)
    assert counts
    assert all(event.startswith("silu") for event in counts)
    with counting() as nothing:
        functional.silu(x, numerics=Numerics())
    assert nothing == {}


def measured_operators(tmp_path):
    from spikeplug.evidence import Settings, study

    paper = PRESETS["paper"].numerics
    small = Settings(numerics=paper, operators=("silu",), dimensions=(8,), distributions=("adversarial",), elements=320)
    return study(small).saturations


def evaluated_model(tmp_path):
    from tiny_model import byte_tokenizer, tiny_model

    from spikeplug.evaluation import Settings, evaluate

    small = Settings(numerics="paper", contexts=(16,), tokens=32, choices=2)
    return evaluate(tiny_model(), byte_tokenizer(), small).saturations


def reported_model(tmp_path):
    from tiny_model import byte_tokenizer, tiny_model

    from spikeplug.report import Settings, run

    facts = {"name": "tiny", "type": "llama", "parameters": 1, "dtype": "float32"}
    small = Settings(numerics="paper", context=16, tokens=16, quick=True, studies=("location",))
    run(tiny_model(), byte_tokenizer(), small, tmp_path / "run", facts)
    return {}


def timed_operator(tmp_path):
    from spikeplug.bench import Settings, measure

    measure(Settings(("silu",), quick=True, rounds=1, memory=False, sections=("simulated",)))
    return {}


@pytest.mark.parametrize("run", [measured_operators, evaluated_model, reported_model, timed_operator])
def test_measuring_erases_no_counts_and_adds_its_own(run, tmp_path):
    clamp("mine", 5)
    with counting() as counts:
        clamp("mine", 2)
        own = run(tmp_path)
    assert saturations()["mine"] == 7
    assert counts["mine"] == 2
    for event, count in own.items():
        assert 0 < count <= counts[event] <= saturations()[event]
