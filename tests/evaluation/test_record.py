"""The JSON file: its schema, and that it is written whole or not at all."""

from __future__ import annotations

import copy
import json
import math
import subprocess

import jsonschema
import pytest

from spikeplug.errors import SpikeplugError
from spikeplug.evaluation import Settings, evaluate, record
from spikeplug.evaluation.record import check_writable, commit, make_record, schema, write_record
from spikeplug.evaluation.results import finite
from spikeplug.numerics import Numerics

ARGUMENTS = {
    "model": None,
    "numerics": "default",
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
    assert schema()["properties"]["schema_version"]["const"] == record.SCHEMA_VERSION


def test_a_real_result_follows_the_schema(result):
    assert errors(json.loads(json.dumps(result, allow_nan=False))) == []


def test_the_config_can_be_read_back(result):
    assert Numerics.from_dict(result["numerics"]) == Numerics()


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
        del place["surprise"]
        if place and path not in {("numerics",), ("saturations",), ("conversion", "counts")}:
            place.pop(next(iter(place)))
            assert errors(changed), path


def test_what_is_no_number_becomes_null():
    values = {"a": math.nan, "b": [1.5, math.inf, (-math.inf, True, None, "x", 3)]}
    assert finite(values) == {"a": None, "b": [1.5, None, [None, True, None, "x", 3]]}


def test_writing_replaces_the_whole_file(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    write_record({"a": 1}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text("old")

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(SpikeplugError, match=r"cannot write .*: No space left on device"):
        write_record({"a": 1}, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_can_be_written_is_left_as_it_is(tmp_path):
    check_writable(tmp_path / "new" / "folder" / "result.json")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    path = tmp_path / "result.json"
    path.write_text("old")
    check_writable(path)
    assert path.read_text() == "old"


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "result.json", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(SpikeplugError, match="cannot write"):
            check_writable(path)


def make_checkout(root, monkeypatch):
    package = root / "src" / "spikeplug" / "evaluation"
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


def test_no_commit_of_somebody_elses_checkout(tmp_path, monkeypatch):
    make_checkout(tmp_path, monkeypatch)
    package = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages" / "spikeplug" / "evaluation"
    package.mkdir(parents=True)
    monkeypatch.setattr(record, "__file__", str(package / "record.py"))
    assert commit() is None


def test_no_commit_without_git(tmp_path, monkeypatch):
    make_checkout(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", "")
    assert commit() is None
