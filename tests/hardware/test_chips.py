"""Chip files: every limit has a source and evidence, unknown ones stay unknown, and bad files are one sentence."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from spikeplug.errors import SpikeplugError
from spikeplug.hardware.chips import EVIDENCE, LIMITS, Chip, Limit, chip_names, load_chip

CHIP = 'name = "A"\ntechnology = "B"\n'
LIMIT = CHIP + '[limits.{name}]\nvalue = {value}\nsource = "a paper"\nevidence = "document"\n'


def test_the_chips_of_the_package() -> None:
    assert chip_names() == ("akida", "darwin3", "loihi1", "loihi2", "spinnaker2", "truenorth")


@pytest.mark.parametrize("name", chip_names())
def test_every_value_has_a_source_and_evidence(name: str) -> None:
    chip = load_chip(name)
    assert chip.name
    assert chip.technology
    assert set(chip.limits) <= set(LIMITS)
    for limit in chip.limits.values():
        if limit.value is None:
            assert limit.note
            assert (limit.source, limit.evidence, limit.at_least) == ("", "", False)
        else:
            assert limit.source
            assert limit.evidence in EVIDENCE


def test_what_is_only_used_by_others_is_a_lower_bound() -> None:
    for name in chip_names():
        for limit in load_chip(name).limits.values():
            assert limit.at_least or limit.evidence != "used"


def test_a_limit_that_is_not_listed_has_no_public_number() -> None:
    assert load_chip("darwin3").limit("cores") == Limit()
    assert load_chip("darwin3").number("cores") is None


def test_a_lower_bound_and_no_limit_are_no_number() -> None:
    limits = {"cores": Limit(8), "fan_in": Limit(math.inf), "weights": Limit(4, at_least=True)}
    chip = Chip("A", "B", "", limits)
    assert [chip.number(name) for name in ("cores", "fan_in", "weights")] == [8, None, None]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(LIMIT.format(name="fan_in", value=12) + "at_least = true\n", encoding="utf-8")
    limit = Limit(12, "a paper", "document", at_least=True)
    assert load_chip(path) == load_chip(str(path)) == Chip("A", "B", "", {"fan_in": limit})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "not valid TOML"),
        ("", "name must be a text"),
        (CHIP + "cores = 3", "unknown field 'cores'"),
        (CHIP + "limits = 3", "limits is not a table"),
        (CHIP + "limits.cores = 3", "is not a table: write [limits.cores]"),
        (CHIP + "[limits.colour]", "unknown field 'colour': choose weight_bits"),
        (CHIP + "[limits.cores]\nvalue = 3", "source must be"),
        (CHIP + '[limits.cores]\nvalue = 3\nsource = "a paper"', "evidence must be one of document"),
        (LIMIT.format(name="cores", value=3) + "at_least = 1", "at_least must be true or false"),
        (LIMIT.format(name="cores", value=0), "a whole number of 1 or more"),
        (LIMIT.format(name="cores", value=2.5), "a whole number of 1 or more"),
        (LIMIT.format(name="cores", value="true"), "a whole number of 1 or more"),
        (LIMIT.format(name="cores", value="nan"), "a whole number of 1 or more"),
        (LIMIT.format(name="leak", value=1), "[least factor, largest factor]"),
        (LIMIT.format(name="leak", value=[2, 1]), "[least factor, largest factor]"),
        (LIMIT.format(name="reset", value=["soft"]), "a list of zero, subtract"),
        (LIMIT.format(name="reset", value=[]), "a list of zero, subtract"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpikeplugError) as caught:
        load_chip(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_unknown_chips_are_refused_with_the_list_of_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SpikeplugError, match="no chip 'loihi3': choose akida, darwin3, loihi1"):
        load_chip("loihi3")
    with pytest.raises(SpikeplugError, match="cannot read the chip"):
        load_chip(tmp_path / "missing.toml")
