"""Rows of a comparison, from made-up results of lm-eval."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
from lm_eval.api import metrics
from lm_eval.tasks._index import TaskIndex

from spikeplug.harness.arguments import SUITES, expand
from spikeplug.harness.rows import Row, all_rows


@dataclass
class FakeTask:
    task_name: str
    aggregations: dict[str, Any] = field(default_factory=dict)

    def aggregation(self) -> dict[str, Any]:
        return self.aggregations


@dataclass
class FakeGroup:
    name: str
    tasks: list[FakeTask]
    has_aggregation: bool = True

    def get_all_tasks(self) -> list[FakeTask]:
        return self.tasks

    def get_all_groups(self) -> list[Any]:
        return []


def results(values: dict[str, dict[str, list[Any]]], groups: dict[str, float] | None = None) -> dict[str, Any]:
    return {
        "results": {
            task: {"alias": task, **{f"{metric},none": 0.5 for metric in by}, **{f"{m}_stderr,none": 0.1 for m in by}}
            for task, by in values.items()
        },
        "groups": {name: {"alias": name, "acc,none": value} for name, value in (groups or {}).items()},
        "higher_is_better": {task: dict.fromkeys(by, True) for task, by in values.items()},
        "samples": {
            task: [
                {"doc_id": i, "filter": "none", **{m: v for m, v in zip(by, item, strict=True) if v is not None}}
                for i, item in reversed([*enumerate(zip(*by.values(), strict=True))])
            ]
            for task, by in values.items()
        },
    }


def found(rows: tuple[Row, ...], kind: str) -> dict[tuple[str, str], Row]:
    return {(row.name, row.metric): row for row in rows if row.kind == kind}


def test_tasks_and_means():
    exact = {"a": {"acc": [1, 1, 0, 0], "acc_norm": [1, 1, 1, 0]}, "b": {"acc": [1, 0]}}
    spiking = {"a": {"acc": [1, 0, 0, 0], "acc_norm": [1, 1, 0, 0]}, "b": {"acc": [1, 1]}}
    tasks = {name: FakeTask(name, {"acc": metrics.mean}) for name in exact}
    rows = all_rows(tasks, {}, results(exact), results(spiking))
    by = found(rows, "task")
    assert by["a", "acc"].found.difference == -0.25
    assert (by["a", "acc"].found.lost, by["a", "acc"].found.gained) == (1, 0)
    means = found(rows, "mean")
    assert means["mean of 2", "acc"].found.exact == 0.5
    assert means["mean of 2", "acc"].found.spiking == 0.625
    assert means["mean of 2", "acc_norm or acc"].found.exact == 0.625
    assert len(means) == 2


def test_items_are_matched_by_their_number_and_missing_ones_left_out():
    exact, spiking = {"a": {"acc": [1, None, 1, 0]}}, {"a": {"acc": [1, 1, None, 1]}}
    (row,) = all_rows({"a": FakeTask("a")}, {}, results(exact), results(spiking))
    assert (row.found.items, row.found.exact, row.found.spiking, row.found.changed) == (2, 0.5, 1.0, 1)


def test_metrics_over_all_items(monkeypatch):
    monkeypatch.setattr("spikeplug.harness.rows.DRAWS", 40)
    pairs = [(1, 1), (1, 0), (0, 0), (0, 1), (1, 1), (0, 0)]
    likelihoods = [(-3.0, 2), (-4.0, 3), (-5.0, 2), (-1.0, 1), (-2.0, 2), (-6.0, 4)]
    worse = [(value - 0.1 * i, weight) for i, (value, weight) in enumerate(likelihoods)]
    exact = {"a": {"mcc": pairs, "word_perplexity": likelihoods}}
    spiking = {"a": {"mcc": [(gold, 1 - guess) for gold, guess in pairs], "word_perplexity": worse}}
    task = FakeTask("a", {"mcc": metrics.matthews_corrcoef, "word_perplexity": metrics.weighted_perplexity})
    by = found(all_rows({"a": task}, {}, results(exact), results(spiking)), "task")
    assert by["a", "mcc"].found.exact == pytest.approx(1 / 3)
    assert by["a", "mcc"].found.spiking == pytest.approx(-1 / 3)
    assert by["a", "mcc"].found.test == "swap"
    assert by["a", "word_perplexity"].found.test == "t"
    assert by["a", "word_perplexity"].found.changed == 5


@pytest.mark.parametrize("value", [0.5, 5 / 12])  # weighted by items, and not
def test_groups_stand_for_their_tasks_in_the_mean(value):
    exact = {"a": {"acc": [1, 0, 0, 0]}, "b": {"acc": [1, 1, 0, 1]}, "c": {"acc": [1, 1]}}
    spiking = {"a": {"acc": [0, 0, 0, 0]}, "b": {"acc": [1, 1, 1, 1, 1, 0]}, "c": {"acc": [0, 1]}}
    exact["b"]["acc"] = [1, 1, 0, 1, 1, 1]
    tasks = {name: FakeTask(name) for name in exact}
    group = FakeGroup("g", [tasks["a"], tasks["b"]])
    rows = all_rows(tasks, {"g": group}, results(exact, {"g": 0.0}), results(spiking, {"g": value}))
    row = found(rows, "group")["g", "acc"]
    assert row.tasks == 2
    assert row.found.spiking == pytest.approx(value)
    mean = found(rows, "mean")["mean of 2", "acc"]
    assert mean.tasks == 3
    assert mean.found.spiking == pytest.approx((value + 0.5) / 2)


def test_values_that_are_no_numbers_are_left_out():
    values = {"a": {"text": ["x", "y"]}}
    assert all_rows({"a": FakeTask("a")}, {}, results(values), results(values)) == ()


def test_suites():
    assert expand("paper") == list(SUITES["paper"])
    assert expand(["mine,piqa", "paper", "sst2 "]) == [
        "mine",
        "piqa",
        "winogrande",
        "hellaswag",
        "arc_challenge",
        "arc_easy",
        "sst2",
    ]
    assert expand([{"task": "inline"}, "mine"]) == [{"task": "inline"}, "mine"]


def test_every_task_of_a_suite_is_in_lm_eval():
    folders = ("winogrande", "hellaswag", "arc", "piqa", "glue")
    known = TaskIndex.build([Path(lm_eval.tasks.__file__).parent / folder for folder in folders])
    assert {task for tasks in SUITES.values() for task in tasks} <= known.keys()
