"""A pass woken by a push updates gauges and decides, but counts neither as a tick nor as a poll."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from opentelemetry.sdk.metrics.export import Gauge, Histogram, Sum

from killswitch.runner.observers import TickReport
from tests.runner_world import World
from tests.telemetry_world import Exported
from tests.worlds import account, after, snapshot


def ticks_polls_and_equity(exported: Exported) -> tuple[int, int | float, float]:
    """The number of tick durations and of polls, and the current equity."""
    metrics = exported.metrics()
    ticks, polls = metrics["killswitch.tick.duration"].data, metrics["killswitch.account.readings"].data
    equity = metrics["killswitch.account.equity"].data
    assert isinstance(ticks, Histogram)
    assert isinstance(polls, Sum)
    assert isinstance(equity, Gauge)
    (point,) = equity.data_points
    return sum(each.count for each in ticks.data_points), sum(each.value for each in polls.data_points), point.value


def test_a_woken_pass_counts_neither_as_a_tick_nor_as_a_poll(tmp_path: Path) -> None:
    """A tick, five woken passes, a tick: two durations and two polls, while the gauge follows each of the seven."""
    with closing(Exported(World(tmp_path))) as exported:
        for number in range(7):
            polled = snapshot(after(seconds=number), account(str(100_000 + number)), scheduled=number in (0, 6))
            exported.witness.ticked(TickReport(polled, (), (), (), (), seconds=0.5))
            assert ticks_polls_and_equity(exported) == (1 + (number == 6), 1 + (number == 6), 100_000 + number)
