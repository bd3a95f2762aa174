"""Presets: numerics and realisation by name, or from a file; whatever is neither is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spikeplug.errors import SpikeplugError, shown
from spikeplug.numerics import NUMERICS_VERSION, Numerics
from spikeplug.presets import PRESETS, Preset, as_numerics, as_realisation, preset, read_preset
from spikeplug.realisation import Realisation


def test_by_name() -> None:
    for name, known in PRESETS.items():
        assert preset(name) is read_preset(name) is known
        assert as_numerics(name) == known.numerics
        assert as_realisation(name, Numerics(bits=7)) == known.realisation
    assert as_numerics(None) == PRESETS["default"].numerics == Numerics()
    assert as_numerics(Numerics(bits=7)) == Numerics(bits=7)


def test_a_realisation_that_is_not_given_is_that_of_the_preset_with_these_numerics() -> None:
    for known in PRESETS.values():
        assert as_realisation(None, known.numerics) == known.realisation
    assert as_realisation(None, Numerics(bits=7)) == Realisation()
    given = Realisation(division="ordered")
    assert as_realisation(given, PRESETS["paper"].numerics) is given


@pytest.mark.parametrize(
    "name", ["nothing-here", "", "Paper", "a" * 5000, "no/such/file.json", 3, None, ["paper"]], ids=str
)
def test_an_unknown_name_is_the_same_sentence_everywhere(name: object) -> None:
    words = "choose one of 'default', 'narrow', 'paper', or give your own numerics"
    calls = [lambda: preset(name)]
    if isinstance(name, str):
        calls += [lambda: read_preset(name), lambda: as_numerics(name), lambda: as_realisation(name, Numerics())]
    for call in calls:
        with pytest.raises(SpikeplugError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"unknown preset {shown(name)}")


@pytest.mark.parametrize("bad", [3, {"bits": 8}, ["paper"], Realisation()], ids=str)
def test_what_is_no_numerics(bad: object) -> None:
    with pytest.raises(SpikeplugError, match=f"numerics is a {type(bad).__name__}: give Numerics"):
        as_numerics(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [3, {"code": "count"}, Numerics()], ids=lambda x: type(x).__name__)
def test_what_is_no_realisation(bad: object) -> None:
    with pytest.raises(SpikeplugError, match=f"realisation is a {type(bad).__name__}: give Realisation"):
        as_realisation(bad, Numerics())  # type: ignore[arg-type]


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", PRESETS)
def test_a_file_of_a_preset_is_the_preset(name: str, tmp_path: Path) -> None:
    known = PRESETS[name]
    values = {**known.numerics.to_dict(), "realisation": known.realisation.to_dict()}
    assert read_preset(written(tmp_path / "own.json", json.dumps(values))) == known
    alone = written(tmp_path / "numerics.json", json.dumps(known.numerics.to_dict()))
    assert read_preset(alone) == known, "without a table realisation, that of the preset with these numerics"


def test_toml_and_json(tmp_path: Path) -> None:
    toml = 'bits = 12\nhalf_range = 4\n\n[realisation]\ncode = "count"\nsteps = 16\n'
    expected = Preset(Numerics(bits=12, half_range=4), Realisation(code="count", steps=16))
    assert read_preset(written(tmp_path / "c.toml", toml)) == expected
    assert read_preset(written(tmp_path / "d.toml", "bits = 12\n")) == Preset(Numerics(bits=12), Realisation())
    assert read_preset(written(tmp_path / "d.json", '{"realisation": {"norm": "ordered"}}')) == Preset(
        Numerics(), Realisation(norm="ordered")
    )
    assert read_preset(written(tmp_path / "empty.toml", "")) == PRESETS["default"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is neither valid JSON nor"),
        ("bits = 8", "is neither valid JSON nor"),
        ("[" * 100_000, "is neither valid JSON nor"),
        ("[1]", "must hold one table"),
        ('"paper"', "must hold one table"),
        ('{"realisation": "paper"}', "must hold one table"),
        ('{"realisation": null}', "must hold one table"),
        ('{"bit": 8}', "'bit' is not a field of Numerics"),
        ('{"steps": 8}', "'steps' is not a field of Numerics"),
        ('{"realisation": {"bits": 8}}', "'bits' is not a field of Realisation"),
        ('{"realisation": {"code": "morse"}}', "code is 'morse'"),
        ('{"bits": 99}', "between"),
        ('{"bits": null}', "bits is None"),
        ("{" + " " * (1 << 14) + "}", "it has more than 16384 characters"),
        ('{"version": 0}', "numerics version 0 is unknown"),
        (f'{{"version": {NUMERICS_VERSION + 1}}}', "install the version of spikeplug that saved it"),
        ('{"version": "3"}', "numerics version '3' is unknown"),
    ],
)
def test_bad_files(content: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SpikeplugError, match=words) as caught:
        read_preset(written(tmp_path / "bad.json", content))
    assert "\n" not in str(caught.value)


def test_a_file_of_hostile_size_is_refused_at_once(tmp_path: Path) -> None:
    """A key of 100,000 dots, which tomllib reads in minutes."""
    with pytest.raises(SpikeplugError, match="more than 16384 characters"):
        read_preset(written(tmp_path / "deep.toml", ".".join("a" * 100_000) + " = 1"))


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert read_preset(written(tmp_path / "mark.json", '\ufeff{"bits": 8}')).numerics == Numerics(bits=8)


def test_a_file_of_an_earlier_version_warns(tmp_path: Path) -> None:
    path = written(tmp_path / "old.json", f'{{"version": {NUMERICS_VERSION - 1}, "bits": 8}}')
    with pytest.warns(UserWarning, match=f"saved with numerics version {NUMERICS_VERSION - 1}"):
        assert read_preset(path).numerics == Numerics(bits=8)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpikeplugError, match="cannot read the preset file"):
        read_preset(str(binary))
    with pytest.raises(SpikeplugError, match="unknown preset"):
        read_preset(str(tmp_path))
