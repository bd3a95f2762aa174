"""lm-eval twice on one model, spiking and exact, and the two compared item by item."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.loggers import EvaluationTracker

from spikeplug import saturation
from spikeplug.harness.model import SpikingLM
from spikeplug.harness.rows import Row, all_rows

ARMS = ("spiking", "exact")  # in the order they run: the batch size found for the first, which needs more, is for both


@dataclass(frozen=True)
class HarnessComparison:
    """Everything a comparison found. `seconds` by arm; `facts` of model and run; `configs` of lm-eval's tasks."""

    rows: tuple[Row, ...]
    seconds: Mapping[str, float]
    model: Mapping[str, Any]
    numerics: Mapping[str, Any]
    conversion: Mapping[str, Any]
    saturations: Mapping[str, int]
    settings: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]


def compare(arguments: argparse.Namespace) -> HarnessComparison | None:
    """Both models on the tasks of lm-eval's arguments; None in a process that is not the first.

    The tasks are loaded before the model, once; the model is loaded once and reverted for the second run. Seeds,
    few-shot examples and batches are the same in both. Errors: SpikeplugError; those of lm-eval.
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
    saturation.reset_saturations()
    results, seconds = {}, {}
    results["spiking"], seconds["spiking"] = _run("spiking", lm, cfg, manager)
    counts = _all_saturations(lm)
    with lm.exact():
        results["exact"], seconds["exact"] = _run("exact", lm, cfg, manager)
    if results["spiking"] is None or results["exact"] is None:
        return None
    about, name = results["spiking"], str(cfg.model_args["pretrained"])
    return HarnessComparison(
        rows=all_rows(loaded["tasks"], loaded.get("groups", {}), results["exact"], about),
        seconds=seconds,
        model={
            "name": os.path.basename(name) if os.path.isfile(name) else name,
            "type": lm.model.config.model_type,
            "parameters": lm.model.num_parameters(),
            "dtype": str(lm.model.dtype).removeprefix("torch."),
        },
        numerics=lm.spiking_config.to_dict(),
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
    """One run of lm-eval, as its own command makes it."""
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
        # Answers of one model must not be read as those of the other.
        use_cache=None if cfg.use_cache is None else f"{cfg.use_cache}_{arm}",
        cache_requests=cfg.cache_requests.get("cache_requests", False),
        rewrite_requests_cache=cfg.cache_requests.get("rewrite_requests_cache", False) and arm == ARMS[0],
        delete_requests_cache=cfg.cache_requests.get("delete_requests_cache", False) and arm == ARMS[0],
        limit=cfg.limit,
        samples=cfg.samples,
        bootstrap_iters=0,  # errors are computed here, for all metrics and for both models in the same way
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


def _all_saturations(lm: SpikingLM) -> dict[str, int]:
    """The counts of all processes, in the first."""
    total: dict[str, int] = {}
    for counts in lm.gather_object(saturation.saturations()) or []:
        for event, count in counts.items():
            total[event] = total.get(event, 0) + count
    return total
