"""Who does which piece of an evaluation; what torchrun's environment says."""

from __future__ import annotations

import random

import pytest
import torch.distributed as dist

from spikeplug.errors import SpikeplugError
from spikeplug.evaluation import Settings, evaluate, run
from spikeplug.measurement.processes import Processes, is_first_process, joined, threads_each

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("size", [1, 2, 3, 8, 50])
def test_every_piece_is_done_once_and_the_load_is_even(size):
    draw = random.Random(size)
    costs = [draw.choice((64, 512, 2048)) for _ in range(41)]
    shares = [Processes(rank, size).share(costs) for rank in range(size)]
    assert sorted(index for share in shares for index in share) == list(range(41))
    assert all(share == sorted(share) for share in shares)
    loads = [sum(costs[index] for index in share) for share in shares]
    assert max(loads) - min(loads) <= max(costs)


def test_alone_without_torchrun():
    with joined() as processes:
        assert processes == Processes(0, 1)
        assert processes.leads
        assert processes.share([5, 5, 5]) == [0, 1, 2]
        assert processes.gather("mine") == ["mine"]
        assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR is not set"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, "RANK is 2"),
    ],
    ids=str,
)
def test_variables_that_do_not_fit(environment, variables, message):
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(SpikeplugError, match=message), joined():
        pass


def test_cores_are_shared_unless_a_number_is_given(environment):
    environment.setattr("os.sched_getaffinity", lambda process: set(range(16)), raising=False)
    assert threads_each() is None
    environment.setenv("LOCAL_WORLD_SIZE", "3")
    assert threads_each() == 5
    environment.setenv("OMP_NUM_THREADS", "1")  # what torchrun sets
    assert threads_each() == 5
    environment.setenv("LOCAL_WORLD_SIZE", "64")
    assert threads_each() == 1
    environment.setenv("OMP_NUM_THREADS", "4")
    assert threads_each() is None


@pytest.mark.parametrize(
    ("variables", "first"),
    [({}, True), ({"RANK": "0"}, True), ({"RANK": "1"}, False), ({"LOCAL_RANK": "1"}, False), ({"RANK": "x"}, False)],
    ids=str,
)
def test_one_process_prints(environment, variables, first):
    environment.delenv("LOCAL_RANK", raising=False)
    for name, value in variables.items():
        environment.setenv(name, value)
    assert is_first_process() == first


def test_a_failure_in_another_process_is_raised_here(tiny):
    class Two(Processes):
        def gather(self, value):
            return [value, run._Found({}, {}, "the exact model itself yields NaN")]

    with pytest.raises(SpikeplugError, match="yields NaN"):
        evaluate(*tiny, Settings(contexts=(16,), tokens=32, choices=2), processes=Two(0, 2))


def test_a_failure_here_reaches_the_other_processes(tiny):
    sent = []

    class Two(Processes):
        def gather(self, value):
            sent.append(value)
            return [value, value]

    tiny[0].lm_head.weight.data[:] = float("nan")
    with pytest.raises(SpikeplugError, match="yields NaN"):
        evaluate(*tiny, Settings(contexts=(16,), tokens=32, choices=2), processes=Two(1, 2))
    assert "yields NaN" in sent[0].failure


@pytest.fixture
def tiny():
    from tiny_model import byte_tokenizer, tiny_model

    return tiny_model(), byte_tokenizer()
