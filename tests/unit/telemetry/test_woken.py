"""What a pass woken by a push is counted as: it shows and decides, and is neither a tick nor a reading."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from opentelemetry.sdk.metrics.export import Gauge, Histogram, Sum

from killswitch.runner.observers import TickReport
from tests import graphs
from tests.runner_world import World, crash_policy
from tests.telemetry_world import Exported
from tests.worlds import account, after, snapshot


def counted(exported: Exported) -> tuple[int, int | float, float]:
    """Durations of ticks, readings of all accounts, and the equity that is shown now."""
    found = exported.metrics()
    ticks, readings = found["killswitch.tick.duration"].data, found["killswitch.account.readings"].data
    equity = found["killswitch.account.equity"].data
    assert isinstance(ticks, Histogram)
    assert isinstance(readings, Sum)
    assert isinstance(equity, Gauge)
    (shown,) = equity.data_points
    return sum(each.count for each in ticks.data_points), sum(each.value for each in readings.data_points), shown.value


def test_a_woken_pass_counts_neither_as_a_tick_nor_as_readings(tmp_path: Path) -> None:
    """A tick, five woken passes, a tick: two durations and two readings, while the gauge follows each of the seven."""
    with closing(Exported(World(tmp_path), graphs.policy_set(crash_policy()))) as exported:
        for number in range(7):
            seen = snapshot(after(seconds=number), account(str(100_000 + number)), scheduled=number in (0, 6))
            exported.witness.ticked(TickReport(seen, (), (), (), (), seconds=0.5))
            assert counted(exported) == (1 + (number == 6), 1 + (number == 6), 100_000 + number)
