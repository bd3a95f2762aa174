"""Ratios of interleaved runs, on a clock that the arms themselves advance: no real time is measured."""

from __future__ import annotations

import pytest

from spikeplug.bench.timing import Timing, exponent, interleaved


class Clock:
    """Seconds pass only while an arm runs."""

    def __init__(self) -> None:
        self.now, self.order = 0.0, []

    def __call__(self) -> float:
        return self.now

    def arm(self, name, seconds):
        def run():
            self.order.append(name)
            self.now += seconds(len(self.order)) if callable(seconds) else seconds

        return run


def test_a_ratio_is_the_median_of_ratios_round_by_round():
    timing = Timing({"kernel": [2.0, 30.0, 6.0], "exact": [1.0, 10.0, 1.0]})
    # Ratios 2, 3, 6; the ratio of medians would be 6.
    assert timing.ratio("kernel", "exact") == (2.5, 3.0, 4.5)
    assert timing.seconds("kernel") == 6.0


def test_rounds_that_an_arm_sat_out_do_not_count():
    timing = Timing({"closed": [None, 8.0, None, 12.0], "exact": [1.0, 2.0, 1.0, 2.0], "once": [None, None, None, 5.0]})
    assert timing.ratio("closed", "exact")[1] == 5.0
    assert timing.count("closed") == 2
    assert timing.ratio("once", "exact") == (2.5, 2.5, 2.5)


def test_arms_take_turns_and_warm_up_outside_the_timing():
    clock = Clock()
    slow_first = iter([1.5])  # threads, caches
    arms = {"kernel": clock.arm("kernel", lambda _: next(slow_first, 0.2)), "exact": clock.arm("exact", 0.1)}
    timing = interleaved(arms, 4, clock=clock)
    assert clock.order == ["kernel", "kernel", "exact", "exact", *("kernel", "exact", "exact", "kernel") * 2]
    assert timing.ratio("kernel", "exact")[1] == pytest.approx(2.0)


def test_what_takes_long_warms_up_once():
    clock = Clock()
    interleaved({"exact": clock.arm("exact", 1.0), "closed": clock.arm("closed", 60.0)}, 1, clock=clock)
    assert clock.order == ["exact", "exact", "closed", "exact", "closed"]


def test_a_short_arm_is_called_often():
    clock = Clock()
    timing = interleaved({"exact": clock.arm("exact", 1e-4)}, 3, shortest=1e-3, clock=clock)
    assert len(clock.order) == 2 + 3 * 10
    assert timing.seconds("exact") == pytest.approx(1e-4)


def test_a_slow_arm_runs_in_fewer_rounds_spread_evenly():
    clock = Clock()
    arms = {"exact": clock.arm("exact", 0.01), "closed": clock.arm("closed", 2.0)}
    timing = interleaved(arms, 12, others=8.0, clock=clock)
    assert timing.count("exact") == 12
    assert [value is not None for value in timing.rounds["closed"]] == [False, False, True] * 4


def test_a_very_slow_arm_runs_in_the_least_of_rounds():
    clock = Clock()
    arms = {"exact": clock.arm("exact", 0.01), "published": clock.arm("published", 17.0)}
    timing = interleaved(arms, 12, clock=clock)
    assert (timing.count("exact"), timing.count("published")) == (12, 3)
    assert timing.ratio("published", "exact") == pytest.approx((1700.0,) * 3)


def test_a_slow_base_makes_fewer_rounds_but_the_least():
    clock = Clock()
    arms = {"exact": clock.arm("exact", 9.0), "kernel": clock.arm("kernel", 18.0), "closed": clock.arm("closed", 3.0)}
    timing = interleaved(arms, 21, bases=("kernel", "exact"), budget=10.0, clock=clock)
    assert timing.count("exact") == timing.count("kernel") == timing.count("closed") == 3
    assert timing.ratio("kernel", "exact") == (2.0, 2.0, 2.0)


def test_exponents():
    assert exponent([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx(2.0)
    assert exponent([5], [1.0]) is None
