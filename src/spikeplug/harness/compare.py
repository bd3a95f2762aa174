"""Run lm-eval on one model twice, spiking and exact, and compare item by item (the record: `compare.schema.json`)."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.loggers import EvaluationTracker

from spikeplug import saturation
from spikeplug.harness.model import SpikingLM
from spikeplug.harness.rows import Row, all_rows
from spikeplug.measurement.loading import model_facts
from spikeplug.measurement.record import environment, finite, origin, read_schema

#: Raised by every change that a reader of the file could notice.
SCHEMA_VERSION = 2
#: In the order they run: spiking needs more memory, and the batch size found for the first is used for both.
ARMS = ("spiking", "exact")


@dataclass(frozen=True)
class HarnessComparison:
    """Everything a comparison found.

    rows           metrics of both models by task, group and mean
    seconds        "spiking" and "exact" -> wall-clock seconds of that run
    saturations    kind -> number of values clamped in the spiking run, in all processes
    conversion     what was replaced and left
    model, numerics, settings, tasks   facts for the JSON record
    """

    rows: tuple[Row, ...]
    seconds: Mapping[str, float]
    model: Mapping[str, Any]
    numerics: Mapping[str, Any]
    conversion: Mapping[str, Any]
    saturations: Mapping[str, int]
    settings: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]


def compare(arguments: argparse.Namespace) -> HarnessComparison | None:
    """Run lm-eval's tasks on the spiking and on the exact model, and return the comparison.

    arguments   parsed arguments of lm-eval, with model and tasks

    Processes other than the first return None.

    Tasks and model are loaded once; the model is reverted for the second run. Seeds, few-shot examples and batches are
    the same in both.
    Errors: SpikeplugError for a model that cannot be loaded or converted; what lm-eval raises.
    """
    cfg = EvaluatorConfig.from_cli(arguments)
    manager = cfg.process_tasks(cfg.metadata)
    loaded = manager.load(cfg.tasks)
    manager.load = lambda names: loaded
    lm = SpikingLM.create_from_arg_obj(
        cfg.model_args, {"batch_size": cfg.batch_size, "max_batch_size": cfg.max_batch_size, "device": cfg.device}
    )
    assert lm.report is not None
    report = lm.report.to_dict()
    results, seconds = {}, {}
    with saturation.counting() as own:
        results["spiking"], seconds["spiking"] = _run("spiking", lm, cfg, manager)
    counts = _added_up(lm.gather_object(own.to_dict()) or [])
    with lm.exact():
        results["exact"], seconds["exact"] = _run("exact", lm, cfg, manager)
    if results["spiking"] is None or results["exact"] is None:
        return None
    about, name = results["spiking"], str(cfg.model_args["pretrained"])
    return HarnessComparison(
        rows=all_rows(loaded["tasks"], loaded.get("groups", {}), results["exact"], about),
        seconds=seconds,
        model=model_facts(lm.model, os.path.basename(name) if os.path.isfile(name) else name),
        numerics=lm.numerics.to_dict(),
        conversion=report,
        saturations=counts,
        settings={
            "model_args": {key: str(value) for key, value in cfg.model_args.items()},
            "limit": cfg.limit,
            "batch_size": str(cfg.batch_size),
            "seeds": cfg.seed,
            "processes": lm.world_size,
        },
        tasks={
            task: {
                "version": str(about["versions"].get(task)),
                "fewshot": about["n-shot"].get(task),
                "items": about["n-samples"][task]["effective"],
                "items_in_all": about["n-samples"][task]["original"],
            }
            for task in loaded["tasks"]
        },
    )


def _run(arm: str, lm: SpikingLM, cfg: Any, manager: Any) -> tuple[dict[str, Any] | None, float]:
    """Run lm-eval on `lm`, as lm-eval's own command does, and write its output files.

    Return its results (None in a process that is not the first) and wall-clock seconds. arm: "spiking" or "exact".
    """
    tracker = EvaluationTracker(output_path=str(Path(cfg.output_path, arm))) if cfg.output_path else None
    seeds = cfg.seed or [None] * 4
    start = time.perf_counter()
    results = lm_eval.simple_evaluate(
        model=lm,
        model_args=cfg.model_args,
        tasks=cfg.tasks,
        num_fewshot=cfg.num_fewshot,
        batch_size=cfg.batch_size,
        device=cfg.device,
        # Answers of one model must not be read as those of the other model.
        use_cache=None if cfg.use_cache is None else f"{cfg.use_cache}_{arm}",
        cache_requests=cfg.cache_requests.get("cache_requests", False),
        rewrite_requests_cache=cfg.cache_requests.get("rewrite_requests_cache", False) and arm == ARMS[0],
        delete_requests_cache=cfg.cache_requests.get("delete_requests_cache", False) and arm == ARMS[0],
        limit=cfg.limit,
        samples=cfg.samples,
        bootstrap_iters=0,  # errors are computed by `rows`, for all metrics and both models alike
        write_out=cfg.write_out and arm == ARMS[0],
        log_samples=True,
        evaluation_tracker=tracker,
        system_instruction=cfg.system_instruction,
        apply_chat_template=cfg.apply_chat_template,
        fewshot_as_multiturn=cfg.fewshot_as_multiturn,
        gen_kwargs=cfg.gen_kwargs,
        task_manager=manager,
        random_seed=seeds[0],
        numpy_random_seed=seeds[1],
        torch_random_seed=seeds[2],
        fewshot_random_seed=seeds[3],
        confirm_run_unsafe_code=cfg.confirm_run_unsafe_code,
        metadata=cfg.metadata,
    )
    seconds = time.perf_counter() - start
    if tracker is not None and results is not None:
        samples = {**results["samples"]} if cfg.log_samples else None
        tracker.save_results_aggregated({k: v for k, v in results.items() if k != "samples"}, samples)
        for name, items in (samples or {}).items():
            tracker.save_results_samples(name, items)
    return results, seconds


def _added_up(everyone: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for counts in everyone:
        for event, count in counts.items():
            total[event] = total.get(event, 0) + count
    return total


def make_comparison_record(found: HarnessComparison, arguments: Sequence[str]) -> dict[str, Any]:
    """Return a comparison as the values of its JSON file, with date, commit and machine; NaN and infinities are None.

    arguments   the words of the command line
    """
    return {
        "schema_version": SCHEMA_VERSION,
        **origin(),
        "environment": {**environment(), "lm_eval": importlib.metadata.version("lm_eval")},
        "arguments": [*arguments],
        "settings": finite(found.settings),
        "numerics": dict(found.numerics),
        "model": dict(found.model),
        "conversion": finite(found.conversion),
        "tasks": finite(found.tasks),
        "rows": [
            finite({**{k: v for k, v in vars(row).items() if k != "found"}, **asdict(row.found)}) for row in found.rows
        ],
        "saturations": dict(found.saturations),
        "seconds": dict(found.seconds),
    }


def comparison_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the file that `spikeplug lm-eval --compare --json` writes."""
    return read_schema("spikeplug.harness", "compare.schema.json")
