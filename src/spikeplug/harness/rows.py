"""Turn the logged samples of two lm-eval runs into rows of a table: by task, by group, and the mean."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api import metrics

from spikeplug.harness.paired import DRAWS, Paired, combined, paired_aggregate, paired_mean

_PERPLEXITIES = (metrics.perplexity, metrics.weighted_perplexity, metrics.bits_per_byte)
_SLOW = (metrics.bleu, metrics.chrf, metrics.chrfpp, metrics.ter)
_SLOW_DRAWS = 100  # lm-eval's own number for these


@dataclass(frozen=True)
class Row:
    """One row of the comparison: a metric of a task, of a group of tasks, or the mean over tasks and groups.

    kind               "task", "group" or "mean"
    higher_is_better   None if lm-eval does not say
    filter             lm-eval's filter of the answers, such as "none"
    tasks              number of tasks in the row
    found              values of the metric in both models, and the test of their difference
    """

    kind: str
    name: str
    metric: str
    filter: str
    higher_is_better: bool | None
    tasks: int
    found: Paired


def all_rows(
    tasks: Mapping[str, Any], groups: Mapping[str, Any], exact: Mapping[str, Any], spiking: Mapping[str, Any]
) -> tuple[Row, ...]:
    """Return the rows of all tasks, then those of groups for which lm-eval reports a value, then means over them.

    tasks, groups     name -> lm-eval's task or group object
    exact, spiking    what simple_evaluate returned for each model, with "samples"
    """
    found, averages = [], []
    for name, task in tasks.items():
        for metric, key in _metrics(exact["results"][name]):
            pairs = _pairs(exact["samples"][name], spiking["samples"][name], metric, key)
            aggregate = task.aggregation().get(metric, metrics.mean)
            statistics = _statistics(pairs, aggregate)
            if statistics is None:
                continue
            better = spiking["higher_is_better"].get(name, {}).get(metric)
            found.append(Row("task", name, metric, key, better, 1, statistics))
            if aggregate is metrics.mean:
                averages.append(found[-1])
    aggregated = {name: group for name, group in groups.items() if group.has_aggregation}
    for name, group in aggregated.items():
        for metric, key in _metrics(spiking["groups"][name]):
            inside = {task.task_name for task in group.get_all_tasks()}
            parts = [row for row in averages if row.name in inside and (row.metric, row.filter) == (metric, key)]
            row = _group(name, parts, spiking["groups"][name][f"{metric},{key}"])
            if row is not None:
                found.append(row)
    covered = {task.task_name for group in aggregated.values() for task in group.get_all_tasks()}
    nested = {child.name for group in aggregated.values() for child in group.get_all_groups() if child is not group}
    top = [row for row in averages if row.name not in covered]
    top += [row for row in found if row.kind == "group" and row.name not in nested]
    return (*found, *_means(top))


def _metrics(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (metric, filter) of result keys like "acc,none"; skip standard errors and values that are not numbers."""
    for key, value in results.items():
        metric, comma, name = key.partition(",")
        if comma and not metric.endswith("_stderr") and metric != "bypass" and isinstance(value, (int, float)):
            yield metric, name


def _pairs(exact: Sequence[Any], spiking: Sequence[Any], metric: str, key: str) -> list[tuple[Any, Any]]:
    """Return (exact value, spiking value) of a metric for each item of both runs, sorted by id. key: filter."""
    values = []
    for samples in (exact, spiking):
        values.append({item["doc_id"]: item[metric] for item in samples if item["filter"] == key and metric in item})
    return [(values[0][item], values[1][item]) for item in sorted(values[0].keys() & values[1].keys())]


def _statistics(pairs: Sequence[tuple[Any, Any]], aggregate: Any) -> Paired | None:
    if not pairs:
        return None
    exact, spiking = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # metrics warn on a resample that lacks a class
        if aggregate is metrics.mean:
            try:
                return paired_mean([float(value) for value in exact], [float(value) for value in spiking])
            except (TypeError, ValueError):  # the task has a metric of its own whose values are not numbers
                return None
        draws = _SLOW_DRAWS if aggregate in _SLOW else DRAWS
        likelihoods = None
        if aggregate in _PERPLEXITIES:
            likelihoods = (_likelihoods(exact), _likelihoods(spiking))
        return paired_aggregate(exact, spiking, aggregate, draws=draws, likelihoods=likelihoods)


def _likelihoods(values: Sequence[Any]) -> list[float]:
    """Return the log-likelihood of each item: the value, or the first of (log-likelihood, weight)."""
    return [float(value[0] if isinstance(value, (tuple, list)) else value) for value in values]


def _group(name: str, parts: Sequence[Row], value: float) -> Row | None:
    """Return the row of a group: the mean of its tasks, weighted by items or not, whichever equals lm-eval's `value`.

    parts   rows of the group's tasks. None if there are none, or if neither mean equals the value.
    """
    if not parts:
        return None
    items = sum(part.found.items for part in parts)
    for weights in ([part.found.items / items for part in parts], [1 / len(parts)] * len(parts)):
        mean = combined([part.found for part in parts], weights)
        if math.isclose(mean.spiking, value, rel_tol=1e-9, abs_tol=1e-12):
            return Row("group", name, parts[0].metric, parts[0].filter, parts[0].higher_is_better, len(parts), mean)
    return None


def _means(top: Sequence[Row]) -> Iterator[Row]:
    """Yield the plain mean of each metric over the tasks and groups that have it, if there are two or more.

    If some tasks have acc_norm and others only acc, also yield the mean of acc_norm where there is one, else acc.
    """
    by_metric: dict[tuple[str, str], dict[str, Row]] = {}
    for row in top:
        by_metric.setdefault((row.metric, row.filter), {})[row.name] = row
    for (metric, key), rows in by_metric.items():
        yield from _mean(metric, key, rows)
    plain, normed = by_metric.get(("acc", "none"), {}), by_metric.get(("acc_norm", "none"), {})
    if normed and plain.keys() - normed.keys():
        yield from _mean("acc_norm or acc", "none", {**plain, **normed})


def _mean(metric: str, key: str, rows: Mapping[str, Row]) -> Iterator[Row]:
    if len(rows) < 2:
        return
    mean = combined([row.found for row in rows.values()], [1 / len(rows)] * len(rows))
    better = {row.higher_is_better for row in rows.values()}
    tasks = sum(row.tasks for row in rows.values())
    yield Row("mean", f"mean of {len(rows)}", metric, key, better.pop() if len(better) == 1 else None, tasks, mean)
