"""Run a whole study: from settings to every measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from spikeplug import saturation
from spikeplug.evidence.baselines import BASELINES
from spikeplug.evidence.distributions import activations, adversarial, gaussian
from spikeplug.evidence.facts import facts
from spikeplug.evidence.measures import measure
from spikeplug.evidence.primitives import primitives
from spikeplug.evidence.published import PUBLISHED_BOUNDS, Figure, figures, of_the_largest
from spikeplug.evidence.results import PRIMITIVES, BoundRow, Row, Settings, Study
from spikeplug.evidence.search import climb, grid, primitive_worst
from spikeplug.evidence.subjects import SUBJECTS, Draw, Subject, last_place


def study(
    settings: Settings,
    *,
    record: Callable[[int], Mapping[str, Tensor]] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Study:
    """Measure what the settings ask for, and return all results.

    record    (tokens) -> recorded activations by role, the kind of number; called once, and only if needed.
              None: record the default model
    progress  (stage, done, total) -> None, called before each stage

    The result holds the saturations of this call only; the counts of the process are not reset.
    Errors: SpikeplugError, before anything is measured, if the model to record is not installed.
    """
    start = time.perf_counter()
    report = progress or (lambda stage, done, total: None)
    pools: Mapping[str, Tensor] = {}
    names = [name for name in settings.operators if name != PRIMITIVES]
    if "activations" in settings.distributions and names:
        report("recording activations", 0, 1)
        pools = (record or _default_record)(settings.tokens)
    work = [*_measurements(settings, names, pools)]
    searches = [*_searches(settings, names)] if settings.bounds else []
    rows: list[Row] = []
    total = len(work) + len(searches)
    with saturation.counting() as saturations:
        for done, (stage, piece) in enumerate(work):
            report(stage, done, total)
            rows += piece()
    found: list[BoundRow] = []
    for done, (stage, search) in enumerate(searches, len(work)):
        report(stage, done, total)
        found += search()
    report("figures", total, total)
    return Study(
        rows=tuple(rows),
        facts=tuple(facts(name, settings.numerics, settings.realisation) for name in names),
        figures=tuple(_figures(settings, names)),
        bounds=tuple(found),
        saturations=saturations.to_dict(),
        seconds=time.perf_counter() - start,
    )


def _default_record(tokens: int) -> Mapping[str, Tensor]:
    from spikeplug.evidence.recording import record_default_model

    return record_default_model(tokens)


def _figures(settings: Settings, names: list[str]) -> list[Figure]:
    if not set(names) & {"softmax", "silu", "rms_norm"}:
        return []
    elements = max(settings.elements, 1 << 16)  # the mean of fewer is too noisy to compare
    return [figure for figure in figures(settings.numerics, elements) if figure.operator in names]


def _draw(distribution: str, pools: Mapping[str, Tensor], seed: int) -> Draw:
    if distribution == "activations":
        return activations(pools, seed)
    return gaussian(seed) if distribution == "gaussian" else adversarial(seed)


def _measurements(
    settings: Settings, names: list[str], pools: Mapping[str, Tensor]
) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    for name in names:
        subject = SUBJECTS[name]
        for dimension in (None,) if subject.record.elementwise else settings.dimensions:
            for distribution in settings.distributions:
                draw = _draw(distribution, pools, settings.seed)
                yield name, partial(_rows, subject, dimension, distribution, draw, settings)
    if PRIMITIVES in settings.operators:
        yield PRIMITIVES, partial(_primitive_rows, settings)


def _rows(subject: Subject, dimension: int | None, distribution: str, draw: Draw, settings: Settings) -> list[Row]:
    """Return the errors of the operator and its baselines on the same inputs."""
    width, numerics = dimension or 64, settings.numerics
    rows = max(4, settings.elements // width)
    inputs = subject.inputs(draw, min(rows, settings.elements // 64) if subject.attends else rows, width)
    exact = subject.exact(*inputs)
    lsb = last_place(subject, exact, numerics)
    shares = subject.name in ("softmax", "attention_weights")

    def row(method: str, y: Tensor, lsb: Tensor | None) -> Row:
        found = measure(y, exact, lsb, distribution=shares)
        return Row(name=subject.name, method=method, dimension=dimension, distribution=distribution, measures=found)

    found = [row("spiking", subject.spiking(*inputs, numerics=numerics), lsb)]
    for baseline in BASELINES:
        if baseline.operator == subject.name:
            found.append(row(baseline.name, baseline.approximate(exact if baseline.of_output else inputs[0]), None))
    return found


def _primitive_rows(settings: Settings) -> list[Row]:
    rows = []
    for primitive in primitives(settings.numerics, settings.dimensions, settings.elements, settings.seed):
        y, exact = (side(*primitive.inputs).double() for side in (primitive.closed, primitive.exact))
        y, exact = (x.reshape(-1, 1) * primitive.step for x in (y, exact))
        lsb = torch.tensor(primitive.step, dtype=torch.float64)
        rows.append(
            Row(
                name=primitive.name,
                method="spiking",
                dimension=primitive.dimension,
                distribution="exhaustive" if primitive.exhaustive else "integers",
                measures=measure(y, exact, lsb),
            )
        )
    return rows


def _searches(settings: Settings, names: list[str]) -> Iterator[tuple[str, Callable[[], list[BoundRow]]]]:
    for name in names:
        subject = SUBJECTS[name]
        for dimension in (8,) if subject.record.elementwise else [d for d in settings.dimensions if d <= 64] or [8]:
            yield f"worst of {name}", partial(_operator_bounds, subject, dimension, settings)
    if PRIMITIVES in settings.operators:
        yield "worst of primitives", partial(_primitive_bounds, settings)


def _operator_bounds(subject: Subject, dimension: int, settings: Settings) -> list[BoundRow]:
    numerics, ours = settings.numerics, subject.record.bound
    bounds = {"ours": ours}
    if subject.name in PUBLISHED_BOUNDS:
        published = PUBLISHED_BOUNDS[subject.name]
        bounds |= {"published": published, "published, of the largest": of_the_largest(published)}
    rows = []
    for source, bound in bounds.items():
        how = {"candidates": settings.candidates, "steps": settings.steps, "seed": settings.seed}
        worst = climb(subject, bound, numerics, dimension, **how)
        rows.append(BoundRow(name=subject.name, source=source, dimension=dimension, worst=worst))
    every = grid(subject, ours, numerics, settings.grid) if dimension == 8 or subject.record.elementwise else None
    if every is not None:
        rows.append(BoundRow(name=subject.name, source="ours", dimension=1, worst=every))
    return rows


def _primitive_bounds(settings: Settings) -> list[BoundRow]:
    rows = []
    for primitive in primitives(settings.numerics, settings.dimensions, settings.elements, settings.seed):
        for source in ("ours", "published") if primitive.published else ("ours",):
            worst = primitive_worst(primitive, published=source == "published")
            rows.append(BoundRow(name=primitive.name, source=source, dimension=primitive.dimension, worst=worst))
    return rows
