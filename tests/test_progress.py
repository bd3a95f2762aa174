"""Progress without a terminal: a line per stage, not too often, with the time left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from spikeplug import progress
from spikeplug.progress import duration, shown_on, silent


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_lines_with_the_time_left(clock):
    out = io.StringIO()
    with shown_on(Console(file=out, width=40)) as report:
        report("loading data", 0, 1)
        clock.now += 50  # no measure of what follows
        report("context 512", 0, 200)
        clock.now += 2
        report("context 512", 20, 200)  # too soon
        clock.now += 4
        report("context 512", 60, 200)
        report("[red]items", 60, 200)  # another stage, but too soon
        clock.now += 6
        report("[red]items", 120, 200)
    assert out.getvalue().splitlines() == [
        "loading data (0 % done)",
        "context 512 (0 % done)",
        "context 512 (30 % done, about 14 s left)",
        "[red]items (60 % done, about 8 s left)",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (9000, "2.5 h")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_a_bar_on_a_terminal():
    out = io.StringIO()
    with shown_on(Console(file=out, force_terminal=True, width=80)) as report:
        report("a stage", 1, 2)
    assert "a stage" in out.getvalue()
    silent("nothing", 0, 0)
