"""Contract: of every operator, the predicted events equal the simulated ones in every field, on any input, with all
presets, realisations and schedules; and so do the outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from counting import cases, same_events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operators.inputs import CONFIGS, KINDS, same, vectors
from operators.samples import samples
from operators.test_operators_linear import KINDS as NEURONS
from operators.test_operators_linear import layer
from torch import Tensor

from spikeplug.library import OPERATORS
from spikeplug.neurons import Events
from spikeplug.operators import LINEAR, RECORDS
from spikeplug.presets import PRESETS, Preset, as_realisation
from spikeplug.realisation import Realisation, Schedule

SCHEDULES: tuple[Schedule, ...] = ("bits", "signed_digits", "count", "rate")


def check(name: str, arguments: tuple[Any, ...], preset: Preset) -> Events:
    simulated, counted = Events(preset.realisation), Events(preset.realisation, predicted=True)
    expected, found = (
        OPERATORS[name](*arguments, numerics=preset.numerics, events=events) for events in (simulated, counted)
    )
    assert same(expected, found)
    same_events(counted, simulated)
    return counted


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", RECORDS)
def test_samples_of_every_preset_are_predicted(name: str, preset: str) -> None:
    for arguments in samples(name, few=as_realisation(preset, PRESETS[preset].numerics).division == "ordered"):
        assert check(name, arguments, PRESETS[preset]).spikes > 0


def one_of(data: st.DataObject, *choices: Any) -> Any:
    return data.draw(st.sampled_from(choices))


def numbers(data: st.DataObject, *shape: int, few: bool = False) -> Tensor:
    """Return numbers of any kind and magnitude; few: small ones, for populations of one neuron per output level."""
    torch.manual_seed(data.draw(st.integers(0, 10**6)))
    if few:
        return torch.randn(shape).clamp(-3, 3)
    if len(shape) > 1 and min(shape[-2:]) > 3 and data.draw(st.booleans()):
        return vectors(one_of(data, *KINDS), shape)
    return torch.randn(shape) * 10.0 ** data.draw(st.integers(-8, 8)) * one_of(data, 1.0, 1.0, 1.0, 0.0)


def nonlinear(name: str, data: st.DataObject, few: bool) -> tuple[Any, ...]:
    record, (rows, width) = RECORDS[name], (one_of(data, 1, 2, 5), one_of(data, 1, 2, 7, 16))
    if few:
        rows, width = 1, min(width, 2)
    if record.family == "attention":
        groups, heads, keys, channels = one_of(data, 1, 2), one_of(data, 1, 2), 1 + width, one_of(data, 1, 4)
        query, key = numbers(data, 1, groups * heads, rows, 4), numbers(data, 1, heads, keys, 4)
        mask = one_of(
            data,
            None,
            torch.rand(rows, keys) > 0.4,
            torch.randn(rows, keys),
            torch.arange(rows).view(-1, 1) % (keys + 1),
        )
        rest = (mask, one_of(data, None, 0.3), one_of(data, None, 5.0), one_of(data, None, torch.randn(groups * heads)))
        return (query, key, *([numbers(data, 1, heads, keys, channels)] if "value" in record.inputs else []), *rest)
    tensors = (numbers(data, rows, width, few=few) for _ in record.inputs)
    chosen = one_of(data, *(arguments[len(record.inputs) :] for arguments in samples(name)))
    return (*tensors, *chosen)


def linear(name: str, data: st.DataObject) -> tuple[Any, ...]:
    rows, width = one_of(data, 1, 3, 6), 16
    x = numbers(data, rows, width)
    setting = one_of(data, (127, 0, 0), (1, 0, 0), (16, 4, 0), (256, 0, 16), (7, 5, 4))
    if name == "linear":
        weight, threshold, unit = layer(one_of(data, 1, 5), width, seed=data.draw(st.integers(0, 99)))
        return (x, weight, threshold, unit, one_of(data, None, torch.randn(len(threshold))), *setting)
    if name == "quantise":
        return (x, *setting)
    if name == "neuron":
        threshold, unit = torch.randint(1, 200, one_of(data, (), (width,)), dtype=torch.int32), torch.tensor(-9)
        return x, threshold, unit.to(torch.int32), one_of(data, *NEURONS)
    if name == "gif":
        return x, torch.rand(width) < 0.4, *one_of(data, (4, 1), (1, 0), (3, 3))
    if name == "rotary":
        return torch.randint(0, 1 << 24, (2, 3)).float(), 10.0 ** -torch.arange(5), data.draw(st.integers(0, 3))
    if name == "matmul":
        return one_of(data, (x, x.flip(0).T), (x.view(-1, rows, width), numbers(data, 2, width, 3)))
    if name == "sum":
        return x, one_of(data, -1, 0)
    return x, one_of(data, x.flip(0), x[0], x[:, :1], torch.tensor(0.3), numbers(data, rows, width))


@pytest.mark.parametrize("name", RECORDS)
@given(data=st.data())
@settings(max_examples=cases(8), deadline=None, suppress_health_check=list(HealthCheck))
def test_nonlinear_operators_are_predicted(name: str, data: st.DataObject) -> None:
    preset = CONFIGS[one_of(data, *CONFIGS)]
    check(name, nonlinear(name, data, preset.realisation.division == "ordered"), preset)


@pytest.mark.parametrize("name", LINEAR)
@given(data=st.data())
@settings(max_examples=cases(8), deadline=None, suppress_health_check=list(HealthCheck))
def test_linear_operators_are_predicted(name: str, data: st.DataObject) -> None:
    restoring = [preset for preset in CONFIGS.values() if preset.realisation.division != "ordered"]
    preset = one_of(data, *restoring)._replace(realisation=Realisation(schedule=one_of(data, *SCHEDULES)))
    check(name, linear(name, data), preset)
