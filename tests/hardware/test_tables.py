"""Tables of prices: those of the package are whole and cited; a bad one is refused by one sentence with its field."""

from __future__ import annotations

from fractions import Fraction

import pytest

from spikeplug import SpikeplugError
from spikeplug.hardware import load_table, table_names
from spikeplug.hardware.tables import TERMS, Memory, read_table, with_companions

VALID = """
title = "mine"
chip = "mine"
technology = "7 nm"
voltage = "0.7 V"
evidence = "silicon"
scope = "marginal"
citation = "measured here"

[prices]
synops = 1.5
driven_updates = 3
"""


def read(text: str):
    return read_table(text, "mine", "mine.toml")


def test_the_prices_are_those_of_their_sources() -> None:
    found = {name: {term: float(price) for term, price in load_table(name).prices.items()} for name in table_names()}
    assert found == {
        "darwin3": {"synops": 5.47},
        "digital45": {"synops": 0.1, "compares": 0.1},
        "loihi1-davies": {
            "synops": 23.6,
            "driven_updates": 81,
            "idle_updates": 52,
            "messages": 1.7,
            "hops": 4.0,
            "table_reads": 23.6,
        },
        "loihi1-sanafe": {
            "synops": 35.5,
            "driven_updates": 72.8,
            "idle_updates": 72.8,
            "spikes": 69.3,
            "messages": 111,
            "table_reads": 35.5,
        },
        "odin": {"synops": 12.7},
        "tianjic": {"synops": 1.54},
        "truenorth": {"synops": 26},
    }


@pytest.mark.parametrize("name", table_names())
def test_every_table_says_where_it_comes_from(name: str) -> None:
    table = load_table(name)
    assert all((table.technology, table.voltage, table.evidence, table.citation, table.notes))
    assert not set(table.prices) & table.included
    if table.scope == "all-in":
        assert set(table.prices) | table.included == set(TERMS)
        assert {"hops", "driven_updates", "idle_updates"} <= table.included


def test_the_two_tables_of_loihi_stand_side_by_side() -> None:
    for name in ("loihi1-davies", "loihi1-sanafe"):
        assert {one.name for one in with_companions([load_table(name)])} == {"loihi1-davies", "loihi1-sanafe"}


@pytest.mark.parametrize("name", ["loihi2", "akida", "spinnaker2"])
def test_a_chip_without_published_prices_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(SpikeplugError, match=rf"there is no table {name}: .*(published|none).*choose one of darwin3"):
        load_table(name)


def test_an_unknown_name_and_a_missing_file_are_refused(tmp_path) -> None:
    with pytest.raises(SpikeplugError, match=r"unknown table 'loihi': give one of .* or a TOML file\."):
        load_table("loihi")
    with pytest.raises(SpikeplugError, match=r"cannot read the table .*mine\.toml: No such file"):
        load_table(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_bytes(b"\xff")
    with pytest.raises(SpikeplugError, match="it is not UTF-8 text"):
        load_table(str(tmp_path / "mine.toml"))


def test_a_file_is_read_as_the_tables_of_the_package_are(tmp_path) -> None:
    (tmp_path / "mine.toml").write_text(VALID + 'table_reads = "synops"\ncompares = "included"\n', encoding="utf-8")
    table = load_table(tmp_path / "mine.toml")
    assert table.name == "mine"
    assert table.prices["table_reads"] == Fraction(3, 2)
    assert table.included == {"compares"}
    assert load_table(table) is table


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VALID.replace("3\n", "-3\n"), r"prices\.driven_updates is -3 in mine\.toml: give a number of 0 or more\."),
        (VALID.replace("3\n", "'dear'\n"), r"prices\.driven_updates is 'dear' in mine\.toml: give a number"),
        (VALID.replace("3\n", "true\n"), r"prices\.driven_updates is True in mine\.toml"),
        (VALID.replace("3\n", "nan\n"), r"mine\.toml is not valid TOML"),
        (
            VALID.replace("3\n", "'compares'\n"),
            r"prices\.driven_updates is 'compares' .*: name a term that has a price",
        ),
        (VALID.replace("driven_updates", "updates"), r"prices\.updates is unknown in mine\.toml: use spikes, messages"),
        (VALID.replace("synops = 1.5\ndriven_updates = 3\n", ""), r"prices is missing in mine\.toml"),
        (VALID.replace('citation = "measured here"', ""), r"citation is missing in mine\.toml: add it, as a text\."),
        (VALID.replace('"measured here"', "7"), r"citation is 7 in mine\.toml: give a text\."),
        (VALID.replace("silicon", "hearsay"), r"evidence is 'hearsay' in mine\.toml: choose one of silicon, simulated"),
        (VALID.replace("marginal", "all-in"), r"prices\.driven_updates is 3 .*: leave it out, an all-in price has it"),
        ("colour = 'red'\n" + VALID, r"colour is unknown in mine\.toml"),
        ("prices = 3\n", r"title is missing"),
        (VALID + "[latency]\nstep = -1\n", r"latency\.step is -1"),
        (VALID + "[latency]\nsteps = 1\n", r"latency\.steps is unknown in mine\.toml: use step\."),
        (VALID + "[transfer]\nlow = 1\n", r"transfer\.high is missing in mine\.toml"),
        (VALID + "[memory]\nkib = [8]\n", r"memory\.pj_per_32_bits is missing"),
        (
            VALID + "[memory]\nkib = [8, 4]\npj_per_32_bits = [1, 2]\n",
            r"memory\.kib is \[8\.0, 4\.0\].*give rising sizes",
        ),
        ("= 3", r"mine\.toml is not valid TOML"),
    ],
)
def test_a_bad_table_is_refused_with_its_field_and_file(text: str, message: str) -> None:
    with pytest.raises(SpikeplugError, match=message) as error:
        read(text)
    assert len(str(error.value).splitlines()) == 1


def test_memory_has_a_price_on_straight_lines_between_its_sizes() -> None:
    memory = Memory((Fraction(8), Fraction(32)), (Fraction(10), Fraction(20)))
    kib = 8 * 1024
    sizes = (0, 8 * kib, 20 * kib, 32 * kib, 33 * kib)
    assert [memory.price(bits) for bits in sizes] == [10, 10, 15, 20, 20]
    assert Memory((Fraction(8),), (Fraction(10),)).price(9 * kib) == 10
