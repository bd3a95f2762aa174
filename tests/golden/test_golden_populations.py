"""What a simulation counts, and of which populations, changes on purpose only: then run make_populations.py here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from golden import make_populations as make
from operators.samples import SAMPLES
from primitives.cases import CASES

from spikeplug.neurons import COUNTS
from spikeplug.operators import RECORDS
from spikeplug.presets import PRESETS


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(make.FILE.read_text(encoding="utf-8"))


def test_every_verb_and_operator_is_pinned(golden: dict[str, Any]) -> None:
    assert golden["verbs"].keys() == {*CASES, "divide, by the published group"}
    assert golden["operators"].keys() == RECORDS.keys()
    assert all(counts.keys() == set(COUNTS) for counts in golden["verbs"].values())


@pytest.mark.parametrize("name", SAMPLES)
def test_populations_are_as_recorded(name: str, golden: dict[str, Any]) -> None:
    for preset in PRESETS:
        expected, found = golden["operators"][name][preset], make.kinds(name, preset)
        assert found == expected
        assert list(found) == list(expected), "in the order of their first step"


def test_no_population_is_of_two_kinds(golden: dict[str, Any]) -> None:
    """One name is one population, whatever the preset; it begins with its operator's."""
    kinds: dict[str, str] = {}
    for operator, presets in golden["operators"].items():
        for populations in presets.values():
            for name, kind in populations.items():
                assert name.startswith(f"{operator}/")
                assert kinds.setdefault(name, kind) == kind
