"""A study from end to end: rows, facts, recorded activations, the JSON record."""

from __future__ import annotations

import dataclasses
import json
import math

import jsonschema
import pytest
import torch
from tiny_model import byte_tokenizer, tiny_model

from spikeplug.errors import SpikeplugError
from spikeplug.evidence import SUBJECTS, Settings, Study, make_study_record, study, study_schema
from spikeplug.evidence.baselines import BASELINES
from spikeplug.evidence.distributions import activations, adversarial, gaussian
from spikeplug.evidence.facts import facts
from spikeplug.evidence.record import SCHEMA_VERSION, csv_rows
from spikeplug.evidence.recording import record
from spikeplug.evidence.table import tables
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS
from spikeplug.realisation import Realisation

ROLES = {role for subject in SUBJECTS.values() for role in subject.roles}
SMALL = {"dimensions": (8, 40), "elements": 320, "candidates": 8, "steps": 4, "grid": 400}


@pytest.fixture(scope="module")
def pools() -> dict[str, torch.Tensor]:
    return record(tiny_model(), byte_tokenizer(), 24)


@pytest.fixture(scope="module")
def found(pools: dict[str, torch.Tensor]) -> Study:
    told: list[tuple[str, int, int]] = []
    settings = Settings(**SMALL, bounds=True)
    result = study(settings, record=lambda tokens: pools, progress=lambda *news: told.append(news))
    assert told[0] == ("recording activations", 0, 1)
    counts = [done for _, done, total in told if total > 1]
    assert counts == list(range(len(counts)))
    return result


def test_every_role_is_recorded(pools: dict[str, torch.Tensor]) -> None:
    assert pools.keys() == ROLES
    for pool in pools.values():
        assert pool.dtype == torch.float64
        assert bool(torch.isfinite(pool).all())
    assert bool((pools["positive"] > 0).all())
    assert float(pools["exponent"].max()) == 0


def test_what_is_recorded_is_what_the_model_computes() -> None:
    """The softmax of the recorded scores is the model's own attention, where no causal mask hides anything."""
    model, tokenizer = tiny_model(), byte_tokenizer()
    model.set_attn_implementation("eager")
    seen: list[torch.Tensor] = []
    first = model.model.layers[0].self_attn
    handle = first.register_forward_hook(lambda module, given, output: seen.append(output[1]))
    pools = record(model, tokenizer, 24)
    handle.remove()
    # The last token sees every key; the first layer's rows come first, one a query.
    row = next(i for i in range(len(pools["scores"])) if i == min(12, 24) - 1)
    assert torch.allclose(pools["scores"][row].softmax(-1).float(), seen[0][0, 0, -1], atol=1e-5)


def test_draws(pools: dict[str, torch.Tensor]) -> None:
    for role in ROLES:
        for draw in (gaussian(3), adversarial(3), activations(pools, 3)):
            for width in (1, 8, 100):
                x = draw(role, 11, width)
                assert x.shape == (11, width)
                assert x.dtype == torch.float64
                assert bool(torch.isfinite(x).all())
                assert role != "positive" or bool((x > 0).all())
    assert torch.equal(gaussian(1)("gate", 2, 3), gaussian(1)("gate", 2, 3))
    rows = {tuple(row) for row in pools["gate"].tolist()}
    assert all(tuple(row) in rows for row in activations(pools)("gate", 5, pools["gate"].shape[1]).tolist())
    with pytest.raises(SpikeplugError, match="do not fill a vector"):
        activations({"gate": torch.zeros(2, 3)})("gate", 1, 7)


def test_rows(found: Study) -> None:
    spiking = [row for row in found.rows if row.method == "spiking" and row.name in SUBJECTS]
    expected = sum(3 * (1 if subject.record.elementwise else 2) for subject in SUBJECTS.values())
    assert len(spiking) == expected
    assert {row.method for row in found.rows} == {"spiking", *(baseline.name for baseline in BASELINES)}
    for row in found.rows:
        assert row.measures.count > 0
        assert (row.measures.mean_kl is not None) == (row.name in ("softmax", "attention_weights"))
        assert (row.measures.max_lsb is not None) == (row.method == "spiking")
        assert 0 <= row.measures.mean_error <= row.measures.max_error
    assert {row.name for row in found.bounds if row.name in SUBJECTS} == set(SUBJECTS)
    assert all(row.holds for row in found.bounds if row.source == "ours")
    assert {row.source for row in found.bounds if not row.holds} <= {"published", "published, of the largest"}
    assert {figure.operator for figure in found.figures} == {"softmax", "silu", "rms_norm"}


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_facts(preset: str) -> None:
    numerics, realisation = PRESETS[preset]
    for name in SUBJECTS:
        one = facts(name, numerics)
        assert one.neurons > 0
        assert one.steps > 0
        assert 0 < one.widest <= 64
        assert one.time_steps * one.levels == 2**numerics.bits or realisation.code == "phase"
        assert (one.smallest is None) == (one.largest is None)
    softmax = facts("softmax", numerics)
    if preset == "default":
        expected = {
            "maximum": 8 + 1 + 1 + 1,  # racers, winner, read-out, and the clamp's threshold
            "ceiling": 1,
            "distance": 8,
            "exp": 8 * (31 + 1 + 1),  # S - 1 neurons find a segment, one climbs, one adds the knot
            "decay": 8,
            "sum": 1,
            "numerator": (8 + 1 + 1) + 23 + 8,  # the largest, its leading one, shifts
            "places": 1,
            "exponent": 1,
            "denominator": 27 + 1,
            "divide": 8 * (1 + 1),  # a restoring neuron and its read-out
            "round": 8,
        }
        assert softmax.table_bytes == 33 * 24 / 8
        assert softmax.scale == "a power of two per vector"
    else:
        # K + 1 neurons find a segment, one climbs, one shifts, one adds; a neuron divides per level.
        expected = {"maximum": 11, "distance": 8, "exp": 8 * (65 + 3), "sum": 1, "divide": 8 * 256}
        assert (softmax.smallest, softmax.largest) == (2.0**-8, 1)
        assert (softmax.time_steps, softmax.levels) == (32, 8)
    assert softmax.populations == expected
    assert softmax.neurons == sum(expected.values())


def test_facts_of_another_realisation() -> None:
    ordered = facts("softmax", Numerics(), Realisation(division="ordered"))
    assert ordered.populations["divide"] == 8 * (4 << 16)


def test_the_record_follows_its_schema(found: Study) -> None:
    jsonschema.Draft202012Validator.check_schema(study_schema())
    assert study_schema()["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    arguments = {
        "operators": ["softmax"],
        "dimensions": [8],
        "distributions": ["gaussian"],
        "preset": "default",
        "bounds": True,
        "quick": False,
        "elements": 320,
        "seed": 0,
        "threads": None,
    }
    values = json.loads(json.dumps(make_study_record(found, Numerics(), Realisation(), arguments), allow_nan=False))
    validator = jsonschema.Draft202012Validator(study_schema(), format_checker=jsonschema.FormatChecker())
    assert [error.message for error in validator.iter_errors(values)] == []
    assert Numerics.from_dict(values["numerics"]) == Numerics()
    assert any(row["inputs"] is None for row in values["bounds"]), "long ones are left out"
    for key in values:
        less = {name: value for name, value in values.items() if name != key}
        assert list(validator.iter_errors(less))
    assert list(validator.iter_errors({**values, "more": 1}))
    assert len(csv_rows(found)) == len(values["measurements"])
    assert all(not isinstance(value, (dict, list)) for row in csv_rows(found) for value in row.values())


def test_tables(found: Study) -> None:
    assert len(tables(found)) == 6
    empty = Study(rows=(), facts=(), figures=(), bounds=(), saturations={}, seconds=0.0)
    assert len(tables(empty)) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operators": ("sofmax",)}, "unknown operator 'sofmax'"),
        ({"operators": ()}, "at least one"),
        ({"operators": ("silu", "silu")}, "once"),
        ({"distributions": ("cauchy",)}, "unknown distribution 'cauchy'"),
        ({"dimensions": (0,)}, "a dimension is 0"),
        ({"dimensions": (8193,)}, "between 1 and 8192"),
        ({"dimensions": (8, 8)}, "each dimension once"),
        ({"numerics": "nothing-here"}, "unknown preset 'nothing-here'"),
        ({"numerics": 8}, "numerics is a int: give Numerics"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpikeplugError, match=message):
        Settings(**settings)  # type: ignore[arg-type]


def test_saturations_are_those_of_the_measurements() -> None:
    settings = Settings(
        operators=("sigmoid",),
        numerics=PRESETS["paper"].numerics,
        distributions=("adversarial",),
        dimensions=(8,),
        elements=800,
        bounds=True,
        candidates=4,
        steps=2,
        grid=400,
    )
    found = study(settings)
    without = study(dataclasses.replace(settings, bounds=False))
    assert found.saturations == without.saturations
    assert found.saturations["sigmoid: exponent beyond H"] > 0
    assert math.isfinite(found.seconds)
