"""Operator resets accept the past: unexplained changes are no longer summed up, and never become a loss.

The account is that of `test_suspicion`: 100,000 USDT, read each second, of which the ledger is known up to the second
before. 30% leaves at 11 s, and a late row is still held against it, so that no units are issued for it twice.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import Graph, SignalRef
from killswitch.model.decision import Decision
from killswitch.model.instant import HOUR
from tests.graphs import FALL_15M, close, stage, trigger
from tests.unit.planning.test_suspicion import Account, decision_kinds, policy
from tests.worlds import account, after, fill, flow, operator_event, snapshot

SHARE = SignalRef("equity.unexplained_share")
UNEXPLAINED = SignalRef("equity.unexplained")
FROM_PEAK = SignalRef("equity.drawdown_from_peak")
FROM_START = SignalRef("equity.loss_from_start")


def graph_with_unexplained(*, fires: bool = False, **rule: Any) -> Graph:
    """Everything is closed at a fall of 10%; and, where it `fires`, at 20% unexplained."""
    made = policy(**rule)
    signals = (FALL_15M, SHARE, UNEXPLAINED, FROM_PEAK, FROM_START)
    odd = trigger("odd", 1, 0.20 if fires else 2.0, rearms=True)
    never = [
        trigger(name, i, limit) for i, (name, limit) in enumerate((("sum", 1e9), ("peak", 2.0), ("start", 2.0)), 2)
    ]
    triggers = (*made.triggers, odd, *never)
    stages = (*made.stages, stage("odd", 2, 1, cooldown=6 * HOUR, actions=(close(),)))
    conditions = tuple(each.condition for each in triggers)
    return replace(made, signals=signals, triggers=triggers, conditions=conditions, stages=stages)


class ResettableAccount(Account):
    """An account that an operator may reset."""

    def reset(self) -> list[Decision]:
        """An operator reset in the next second's tick; its decisions."""
        self.now += 1
        return self.tick(self.read(events=(operator_event("reset", after(seconds=self.now), id_=f"e{self.now}"),)))

    def value(self, name: str) -> float:
        """The signal of this trigger; it must be known, except for a window from before the start."""
        found = {each.name: each.value for each in self.interpreter.status()[0].triggers}[name]
        assert found is not None
        assert found[1] == (1.0 if name == "fall" and found[1] == 1.0 else pytest.approx(found[0], abs=1e-9))
        return found[0]

    def shown(self) -> tuple[float, ...]:
        """The share and the sum of unexplained changes, and the falls of 15 minutes, from the peak and the start."""
        return tuple(round(self.value(name), 6) for name in ("odd", "sum", "fall", "peak", "start"))


NOTHING = (0, 0, 0, 0, 0)


def calm(graph: Graph | None = None) -> ResettableAccount:
    made = ResettableAccount(graph or graph_with_unexplained())
    made.until(10)
    return made


@pytest.mark.parametrize("wait", [5, 29, 31], ids=["open", "open still", "settled as money that moved"])
def test_a_reset_accepts_the_change_that_fired_and_the_stage_does_not_fire_again(wait: int) -> None:
    """20% unexplained fires at once; after the wait and a reset none of it is left, whatever it counts as by then."""
    one = calm(graph_with_unexplained(fires=True))
    one.leaves(30_000)
    ((second, fired),) = one.until(11)
    assert (second, fired.stage) == (11, "odd")
    one.until(10 + wait)
    assert one.value("odd") == pytest.approx(0.3)
    assert [each.kind for each in one.reset() if each.kind != "suspicion"] == ["reset"]
    assert one.shown() == NOTHING
    assert [each for each in one.until(300) if each[1].kind != "suspicion"] == []
    assert one.shown() == NOTHING


@pytest.mark.parametrize("wait", [0, 1, 5, 29, 31])
def test_a_reset_without_a_latch_accepts_unexplained_changes_too(wait: int) -> None:
    """Also in the same tick that shows them."""
    one = calm()
    one.leaves(30_000)
    one.until(10 + wait)
    one.reset()
    assert one.shown() == NOTHING
    one.until(300)
    assert one.shown() == NOTHING


def test_a_reset_without_a_latch_keeps_a_loss_that_prices_explain() -> None:
    """6% are lost by prices, and no stage has fired on them: 4% more close everything."""
    one = calm()
    one.pnl = Decimal(-6_000)
    one.until(20)
    one.reset()
    assert one.value("peak") == one.value("start") == pytest.approx(0.06)
    one.pnl = Decimal(-10_000)
    assert decision_kinds(one.until(22)) == [(22, None)]


def test_a_reset_does_not_accept_a_change_shown_after_the_command() -> None:
    """It is made at 10.6 s, and the snapshot of 11 s, which processes it, shows that 30% are gone."""
    one = calm()
    one.leaves(30_000)
    one.now = 11
    one.tick(one.read(events=(operator_event("reset", after(seconds=10.6)),)))
    assert one.shown() == (0.3, -30_000, 0, 0, 0)
    one.until(60)
    assert decision_kinds(one.decided) == [(12, "suspicion")]


@pytest.mark.parametrize("row_after", [12, 40, 3000])
@pytest.mark.parametrize("wait", [5, 31])
def test_a_row_after_the_reset_is_matched_with_the_accepted_change(wait: int, row_after: int) -> None:
    """It is no second withdrawal: 10,500 of the 70,000 that are left are 15%, and the row hides none of a new fall."""
    one = calm()
    one.leaves(30_000)
    one.until(10 + wait)
    one.reset()
    one.until(max(one.now, row_after))
    one.rows.append(flow("out", after(seconds=11), "-30000"))
    one.until(one.now + 5)
    assert one.shown() == NOTHING
    one.leaves(30_000)
    one.until(one.now + 5)
    assert one.shown() == (pytest.approx(3 / 7, abs=1e-6), -30_000, 0, 0, 0)
    one.pnl = Decimal(-6_000)  # of the 40,000 that are left now
    one.until(one.now + 1)
    assert one.shown()[2:] == (0.15, 0.15, 0.15)


@pytest.mark.parametrize("row", [True, False])
def test_a_fall_that_the_policy_counts_as_loss_is_none_after_a_reset(row: bool) -> None:
    """`on_unexplained: close`, 30% at 11 s, a reset at 16 s: nothing is closed at 28 s, nor reported as a loss."""
    one = calm(graph_with_unexplained(closes_unexplained=True))
    one.leaves(30_000)
    one.until(15)
    one.reset()
    if row:
        one.until(20)
        one.rows.append(flow("out", after(seconds=11), "-30000"))
    one.until(300)
    assert [each.intents for _, each in one.decided if each.intents] == []
    assert [each.text for _, each in one.notices if "counts as loss:" in each.text] == []
    assert one.shown() == NOTHING
    one.pnl = Decimal(-7_000)
    one.until(301)
    assert one.shown()[2:] == (0.1, 0.1, 0.1)


@pytest.mark.parametrize("wait", [5, 31])
def test_an_emptied_account_has_lost_nothing_after_a_reset(wait: int) -> None:
    """All of 100,000 leaves without a row: no equity is left that could fall."""
    one = calm()
    one.leaves(100_000)
    one.until(10 + wait)
    one.reset()
    one.until(100)
    assert decision_kinds(one.decided) == [(12, "suspicion"), *([(16, "suspicion")] if wait == 5 else [])]
    assert one.value("fall") == 0


def test_a_fill_after_the_reset_does_not_reopen_the_accepted_change() -> None:
    """800 of 1,000 contracts vanish and 12,000 with them, at the mark; of fills that say 13,000, 1,000 came in.

    What is accepted is neither a loss nor unexplained, whatever its fills say.
    """
    one = calm(graph_with_unexplained())

    def tick(second: int, equity: str, **more: Any) -> None:
        known = after(seconds=second - 1)
        polled = account(equity, [], fills_as_of=known, flows_as_of=known, unrealized=Decimal(0), **more)
        one.interpreter.tick(snapshot(after(seconds=second), polled))

    tick(11, "88000")
    one.now = 12
    one.wallet = Decimal(88_000)
    known = after(seconds=11)
    polled = account("88000", [], fills_as_of=known, flows_as_of=known, unrealized=Decimal(0))
    one.interpreter.tick(snapshot(after(seconds=12), polled, events=(operator_event("reset", after(seconds=12)),)))
    assert one.shown() == NOTHING
    tick(13, "88000", fills=[fill("f", after(seconds=11), "L", "sell", "500", "74")])
    assert one.shown() == NOTHING
    for second in range(14, 60):
        tick(second, "88000")
    assert one.shown() == NOTHING


def test_falls_before_a_reset_do_not_count_as_repeated_falls() -> None:
    """Four of 2,500 within 9 s, a reset, and a fifth: one fall alone does not count as a trade without fills."""
    one = calm()
    for second in (10, 12, 14, 16):
        one.until(second)
        one.leaves(2_500)
    one.until(17)
    one.reset()
    one.leaves(2_500)
    one.until(19)
    assert one.shown() == (pytest.approx(2_500 / 90_000, abs=1e-6), -2_500, 0, 0, 0)
    one.until(100)
    assert one.value("fall") == 0


@pytest.mark.parametrize("wait", [5, 31])
@pytest.mark.parametrize("moved", [30_000, -50_000], ids=["out", "in"])
def test_an_accepted_change_is_kept_over_a_restart(moved: int, wait: int) -> None:
    """Neither the windows nor the sum come back, and the row that comes to the new run is matched."""
    one = calm()
    one.leaves(moved)
    one.until(10 + wait)
    one.reset()
    one.until(one.now + 2)
    one.restart()
    one.until(one.now + 2)
    assert one.shown() == NOTHING
    one.rows.append(flow("moved", after(seconds=11), str(-moved), "withdrawal" if moved > 0 else "deposit"))
    one.until(one.now + 5)
    assert one.shown() == NOTHING


@pytest.mark.parametrize("moved", [30_000, -50_000], ids=["out", "in"])
def test_a_reset_between_two_snapshots_is_kept_over_a_restart(moved: int) -> None:
    """The row of the last snapshot was stored before the reset determined what its change counts as."""
    one = calm()
    one.leaves(moved)
    one.until(13)
    one.now = 14
    polled = one.read()
    one.tick(polled)
    event = operator_event("reset", after(seconds=14.4))
    one.tick(replace(polled, as_of=after(seconds=14.4), scheduled=False, events=(event,)))
    one.restart()
    one.until(16)
    assert one.shown() == NOTHING
    one.pnl = -one.wallet / 10
    one.until(17)
    assert one.shown()[2:] == (0.1, 0.1, 0.1)


def test_a_reset_of_a_suspicion_records_author_and_reason() -> None:
    """It is locked at 12 s and lifted at 16 s: a separate decision, and no notice that nothing is locked."""
    one = calm()
    one.leaves(30_000)
    one.until(15)
    (ended,) = one.reset()
    assert (ended.kind, ended.is_withdrawal, ended.stage, ended.author) == ("suspicion", True, "stop", "operator-1")
    assert ended.lock is not None
    assert ended.lock.until == ended.as_of == after(seconds=16)
    assert ended.reason == "suspicion: over, reset by operator-1: reviewed"
    (notice,) = [each for second, each in one.notices if second == 16]
    assert notice.text == (
        "a reset by operator-1 (reviewed) was received: the lock on suspicion of stop is lifted; no stage is latched; "
        "what nothing explained until then counts as money that moved"
    )


def test_a_reset_after_the_suspicion_has_run_out_ends_none() -> None:
    """The lock was until 32 s; at 40 s there is nothing to lift."""
    one = calm()
    one.leaves(30_000)
    one.until(39)
    assert one.reset() == []
    assert one.reset() == []
    texts = [each.text for second, each in one.notices if second >= 40]
    assert texts == [
        "a reset by operator-1 (reviewed) was received, but no stage is latched; what nothing explained until then "
        "counts as money that moved",
        "a reset by operator-1 (reviewed) was received, but no stage is latched",
    ]


def test_the_next_fall_after_a_reset_pages_again() -> None:
    """Within ten minutes of the last page: the next fall is not compared with what an operator has accepted."""
    one = calm()
    one.leaves(30_000)
    one.until(40)
    one.reset()
    one.leaves(200)
    one.until(60)
    assert one.pages() == [(11, None), (42, None)]
