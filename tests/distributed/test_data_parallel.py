"""Converted models under FSDP2 and DDP in two processes: equal bit for bit to plain ones, converted and reverted."""

from __future__ import annotations

import pytest
import torch
from two_processes import run_worker

CASES = (
    "convert, fully_shard",
    "convert, fully_shard, norm alone",
    "fully_shard, convert",
    "fully_shard, convert, norm alone",
    "from_pretrained, convert",
    "convert, DDP",
    "DDP, convert",
    "DDP, convert the wrapper",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run_worker("data_parallel_worker.py", tmp_path_factory.mktemp("data_parallel"))


@pytest.mark.parametrize("case", CASES)
def test_equal_bit_for_bit_to_the_plain_model(found, case):
    for rank in found:
        assert "error" not in rank[case], rank[case]["error"]
        plain = rank["plain"]
        assert rank[case]["names"] == plain["names"]
        for stage in ("converted", "reverted", "again"):
            for name in ("hidden", "logits"):
                assert torch.equal(rank[case][stage][name], plain[stage][name]), (stage, name)


def test_the_plain_model_is_converted_and_comes_back(found):
    plain = found[0]["plain"]
    assert torch.equal(plain["converted"]["logits"], plain["again"]["logits"])
    assert not torch.equal(plain["converted"]["logits"], plain["reverted"]["logits"])
