"""The JSON record of an evaluation follows its schema."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest

from spikeplug.evaluation import Settings, evaluate, make_record, results, schema
from spikeplug.measurement.record import mismatch
from spikeplug.numerics import Numerics

ARGUMENTS = {
    "model": None,
    "exact": None,
    "recipe": "operators",
    "bits": None,
    "weight_bits": None,
    "calibration": None,
    "calibration_tokens": None,
    "preset": "default",
    "operators": ["softmax", "silu", "rms_norm"],
    "exclude": None,
    "context": [16],
    "tokens": 32,
    "text": None,
    "choices": 2,
    "tasks": [],
    "seed": 0,
    "threads": None,
    "dtype": "float32",
}
MODEL = {"name": "tiny", "type": "llama", "parameters": 34976, "dtype": "float32"}


@pytest.fixture(scope="module")
def result(tokenizer):
    from tiny_model import tiny_model

    found = evaluate(tiny_model(), tokenizer, Settings(contexts=(16,), tokens=32, choices=2))
    return make_record(found, Numerics(), ARGUMENTS, MODEL)


def errors(values):
    validator = jsonschema.Draft202012Validator(schema(), format_checker=jsonschema.FormatChecker())
    return [error.message for error in validator.iter_errors(values)]


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(schema())
    assert schema()["properties"]["schema_version"]["const"] == results.SCHEMA_VERSION


def test_a_real_result_follows_the_schema(result):
    assert errors(json.loads(json.dumps(result, allow_nan=False))) == []


def test_our_own_check_agrees(result):
    assert mismatch(json.loads(json.dumps(result)), inlined(schema())) is None


def test_the_numerics_can_be_read_back(result):
    assert Numerics.from_dict(result["numerics"]) == Numerics()


def inlined(schema, root=None):
    """The schema without references, which our own check does not know."""
    root = root or schema
    if isinstance(schema, dict):
        if "$ref" in schema:
            return inlined(root["$defs"][schema["$ref"].split("/")[-1]], root)
        return {key: inlined(value, root) for key, value in schema.items()}
    return [inlined(value, root) for value in schema] if isinstance(schema, list) else schema


def objects(values, path=()):
    if isinstance(values, dict):
        yield path
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, (dict, list)):
            yield from objects(value, (*path, key))


def test_no_object_but_the_open_ones_takes_a_field_more_or_less(result):
    for path in objects(result):
        changed = copy.deepcopy(result)
        place = changed
        for key in path:
            place = place[key]
        place["surprise"] = [1]
        assert errors(changed), path
        assert mismatch(changed, inlined(schema())), path
        del place["surprise"]
        if place and path not in {("numerics",), ("saturations",), ("conversion", "counts")}:
            place.pop(next(iter(place)))
            assert errors(changed), path
            assert mismatch(changed, inlined(schema())), path
