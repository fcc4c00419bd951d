"""A reset by hand accepts the past: what nothing explains is added up no more, and never becomes a loss.

The account is that of `test_suspicion`: 100,000 USDT, read each second, of which the ledger is known up to the second
before. 30% leaves at 11 s, and a late row is still held against it, so that no units are issued for it twice.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from killswitch.graph.nodes import Graph, SignalRef
from killswitch.model.decision import Decision
from killswitch.model.instant import HOUR
from tests.graphs import FALL_15M, close, stage, trigger
from tests.unit.planning.test_suspicion import Account, kinds, policy
from tests.worlds import account, after, fill, flow, hand, snapshot

SHARE = SignalRef("equity.unexplained_share")
UNEXPLAINED = SignalRef("equity.unexplained")
FROM_PEAK = SignalRef("equity.drawdown_from_peak")
FROM_START = SignalRef("equity.loss_from_start")


def watching(*, fires: bool = False, **rule: Any) -> Graph:
    """Everything is closed at a fall of 10%; and, where it `fires`, at 20% that nothing explains."""
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


class Resetting(Account):
    """An account that a hand may reset."""

    def reset(self) -> list[Decision]:
        """A reset by hand in the next second's tick; what is decided there."""
        self.now += 1
        return self.tick(self.read(events=(hand("reset", after(seconds=self.now), id_=f"e{self.now}"),)))

    def value(self, name: str) -> float:
        """The signal that the trigger of this name reads; it must be known, but for a window of before the start."""
        found = {each.trigger.name: each.value for each in self.interpreter.status()[0].readings}[name]
        assert found is not None
        assert found[1] == (1.0 if name == "fall" and found[1] == 1.0 else pytest.approx(found[0], abs=1e-9))
        return found[0]

    def shown(self) -> tuple[float, ...]:
        """The share and the sum of what is unexplained, and the falls of 15 minutes, from the peak and the start."""
        return tuple(round(self.value(name), 6) for name in ("odd", "sum", "fall", "peak", "start"))


NOTHING = (0, 0, 0, 0, 0)


def calm(graph: Graph | None = None) -> Resetting:
    made = Resetting(graph or watching())
    made.until(10)
    return made


@pytest.mark.parametrize("wait", [5, 29, 31], ids=["open", "open still", "settled as money that moved"])
def test_a_reset_ends_what_a_stage_has_fired_on_and_it_does_not_fire_again(wait: int) -> None:
    """20% unexplained fires at once; so many seconds later nothing of it is left, whatever it counts as by then."""
    one = calm(watching(fires=True))
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
def test_a_reset_with_nothing_latched_accepts_what_nothing_explains_too(wait: int) -> None:
    """Also in the very tick that shows it."""
    one = calm()
    one.leaves(30_000)
    one.until(10 + wait)
    one.reset()
    assert one.shown() == NOTHING
    one.until(300)
    assert one.shown() == NOTHING


def test_a_reset_with_nothing_latched_leaves_a_loss_that_prices_explain() -> None:
    """6% are lost by prices, and no stage has fired on them: 4% more close everything."""
    one = calm()
    one.pnl = Decimal(-6_000)
    one.until(20)
    one.reset()
    assert one.value("peak") == one.value("start") == pytest.approx(0.06)
    one.pnl = Decimal(-10_000)
    assert kinds(one.until(22)) == [(22, None)]


def test_a_reset_does_not_accept_what_nobody_could_have_seen() -> None:
    """It is made at 10.6 s, and the reading of 11 s, which takes it in, shows that 30% are gone."""
    one = calm()
    one.leaves(30_000)
    one.now = 11
    one.tick(one.read(events=(hand("reset", after(seconds=10.6)),)))
    assert one.shown() == (0.3, -30_000, 0, 0, 0)
    one.until(60)
    assert kinds(one.decided) == [(12, "suspicion")]


@pytest.mark.parametrize("row_after", [12, 40, 3000])
@pytest.mark.parametrize("wait", [5, 31])
def test_a_row_that_comes_after_the_reset_is_held_against_what_was_accepted(wait: int, row_after: int) -> None:
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
def test_a_fall_that_the_policy_takes_for_a_loss_is_none_after_a_reset(row: bool) -> None:
    """`on_unexplained: close`, 30% at 11 s, a reset at 16 s: nothing is closed at 28 s, nor told as a loss."""
    one = calm(watching(closes_unexplained=True))
    one.leaves(30_000)
    one.until(15)
    one.reset()
    if row:
        one.until(20)
        one.rows.append(flow("out", after(seconds=11), "-30000"))
    one.until(300)
    assert [each.intents for _, each in one.decided if each.intents] == []
    assert [each.text for _, each in one.told if "counts as loss:" in each.text] == []
    assert one.shown() == NOTHING
    one.pnl = Decimal(-7_000)
    one.until(301)
    assert one.shown()[2:] == (0.1, 0.1, 0.1)


@pytest.mark.parametrize("wait", [5, 31])
def test_an_account_that_was_emptied_has_lost_nothing_after_a_reset(wait: int) -> None:
    """All of 100,000 leaves without a row: there is nothing that could have fallen."""
    one = calm()
    one.leaves(100_000)
    one.until(10 + wait)
    one.reset()
    one.until(100)
    assert kinds(one.decided) == [(12, "suspicion"), *([(16, "suspicion")] if wait == 5 else [])]
    assert one.value("fall") == 0


def test_a_fill_that_comes_after_the_reset_opens_nothing() -> None:
    """800 of 1,000 contracts vanish and 12,000 with them, at the mark; of fills that say 13,000, 1,000 came in.

    What is accepted is neither a loss nor unexplained, whatever its fills say.
    """
    one = calm(watching())

    def tick(second: int, equity: str, **more: Any) -> None:
        known = after(seconds=second - 1)
        seen = account(equity, [], fills_as_of=known, flows_as_of=known, unrealized=Decimal(0), **more)
        one.interpreter.tick(snapshot(after(seconds=second), seen))

    tick(11, "88000")
    one.now = 12
    one.wallet = Decimal(88_000)
    known = after(seconds=11)
    seen = account("88000", [], fills_as_of=known, flows_as_of=known, unrealized=Decimal(0))
    one.interpreter.tick(snapshot(after(seconds=12), seen, events=(hand("reset", after(seconds=12)),)))
    assert one.shown() == NOTHING
    tick(13, "88000", fills=[fill("f", after(seconds=11), "L", "sell", "500", "74")])
    assert one.shown() == NOTHING
    for second in range(14, 60):
        tick(second, "88000")
    assert one.shown() == NOTHING


def test_falls_of_before_a_reset_are_none_of_many_in_a_row() -> None:
    """Four of 2,500 within 9 s, a reset, and a fifth: one fall alone is no trade that nobody shows."""
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
def test_what_was_accepted_is_remembered_after_a_restart(moved: int, wait: int) -> None:
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
def test_a_reset_between_two_readings_is_remembered_after_a_restart(moved: int) -> None:
    """The row of the last reading was stored before the reset said what the change of it counts as."""
    one = calm()
    one.leaves(moved)
    one.until(13)
    one.now = 14
    seen = one.read()
    one.tick(seen)
    event = hand("reset", after(seconds=14.4))
    one.tick(structs.replace(seen, as_of=after(seconds=14.4), scheduled=False, events=(event,)))
    one.restart()
    one.until(16)
    assert one.shown() == NOTHING
    one.pnl = -one.wallet / 10
    one.until(17)
    assert one.shown()[2:] == (0.1, 0.1, 0.1)


def test_a_reset_says_who_ended_a_suspicion_and_why() -> None:
    """It is locked at 12 s and lifted at 16 s: a decision of its own, and no word of nothing being locked."""
    one = calm()
    one.leaves(30_000)
    one.until(15)
    (ended,) = one.reset()
    assert (ended.kind, ended.is_withdrawal, ended.stage, ended.author) == ("suspicion", True, "stop", "operator-1")
    assert ended.lock is not None
    assert ended.lock.until == ended.as_of == after(seconds=16)
    assert ended.reason == "suspicion: over, reset by operator-1: reviewed"
    (notice,) = [each for second, each in one.told if second == 16]
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
    texts = [each.text for second, each in one.told if second >= 40]
    assert texts == [
        "a reset by operator-1 (reviewed) was received, but no stage is latched; what nothing explained until then "
        "counts as money that moved",
        "a reset by operator-1 (reviewed) was received, but no stage is latched",
    ]


def test_the_next_fall_after_a_reset_pages_again() -> None:
    """Within ten minutes of the last page: what a person has accepted is not what the next one is held against."""
    one = calm()
    one.leaves(30_000)
    one.until(40)
    one.reset()
    one.leaves(200)
    one.until(60)
    assert one.pages() == [(11, None), (42, None)]
