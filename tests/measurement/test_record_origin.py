"""What every record says of its origin; values for JSON; the check of a value against a schema."""

from __future__ import annotations

import math
import subprocess

import pytest

from spikeplug.measurement import record
from spikeplug.measurement.record import commit, finite, mismatch


def test_what_is_not_a_number_becomes_null():
    values = {"a": math.nan, "b": [1.5, math.inf, (-math.inf, True, None, "x", 3)]}
    assert finite(values) == {"a": None, "b": [1.5, None, [None, True, None, "x", 3]]}


OBJECT = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 1}, "b": {"type": ["string", "null"], "pattern": "^x"}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "schema", "message"),
    [
        ({"a": 1, "b": "xy"}, OBJECT, None),
        ({"a": 1, "b": None}, OBJECT, None),
        ([], OBJECT, "it is not of type object"),
        ({}, OBJECT, "a is missing"),
        ({"a": 0}, OBJECT, "a is 0"),
        ({"a": True}, OBJECT, "a is not of type integer"),
        ({"a": 1.5}, OBJECT, "a is not of type integer"),
        ({"a": 1, "b": "y"}, OBJECT, "b is 'y'"),
        ({"a": 1, "c": 2}, OBJECT, "c is unknown"),
        ({"x": {"a": "?"}}, {"properties": {"x": OBJECT}}, "x.a is not of type integer"),
        ({"x": 1}, {"additionalProperties": {"type": "string"}}, "x is not of type string"),
        ([1, "2"], {"type": "array", "items": {"type": "integer"}}, "[1] is not of type integer"),
        ([], {"type": "array", "minItems": 1}, " has 0 entries"),
        (3, {"enum": [1, 2]}, " is 3"),
        ({"x": float("nan")}, {"properties": {"x": {"type": "number"}}}, "x is nan"),
        (float("inf"), {}, " is inf"),
        (float("-inf"), {"anyOf": [{"type": "null"}, {"type": "number"}]}, "it is not of type null"),
        (10**400, {"type": "integer"}, None),
        (3, {"const": 2}, " is 3, not 2"),
        (True, {"type": "boolean"}, None),
        (2, {"anyOf": [{"type": "string"}, {"type": "integer"}]}, None),
        ([], {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "it is not of type string"),
    ],
    ids=str,
)
def test_a_value_against_a_schema(value, schema, message):
    assert mismatch(value, schema) == message


def make_checkout(root, monkeypatch):
    package = root / "src" / "spikeplug" / "measurement"
    package.mkdir(parents=True)
    (package / "record.py").write_text("one")
    git = ["git", "-C", str(root), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "m"], check=True)
    monkeypatch.setattr(record, "__file__", str(package / "record.py"))
    return package / "record.py", subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()


def test_commit_of_a_checkout(tmp_path, monkeypatch):
    file, head = make_checkout(tmp_path, monkeypatch)
    assert commit() == head
    file.write_text("two")
    assert commit() == head + "-dirty"


def test_no_commit_of_another_checkout(tmp_path, monkeypatch):
    make_checkout(tmp_path, monkeypatch)
    package = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages" / "spikeplug" / "measurement"
    package.mkdir(parents=True)
    monkeypatch.setattr(record, "__file__", str(package / "record.py"))
    assert commit() is None


def test_no_commit_without_git(tmp_path, monkeypatch):
    make_checkout(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", "")
    assert commit() is None
