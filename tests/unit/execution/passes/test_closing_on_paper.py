"""Closing on the paper market: partial fills over several bars, real symbol rules, margin and fees."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from msgspec.structs import replace

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.decision import Decision, Intent
from killswitch.model.store import Store
from killswitch.model.venue import AccountSpec
from killswitch_paper import adapter
from tests.closing_cases import commit
from tests.honest_venue import NOW, VirtualClock
from tests.markets import FREE, Desk, bar, instrument

D = Decimal


def decision(contracts: str, target: str, name: str = "d1") -> Decision:
    intent = Intent("main", "A", "long", "sell", D(contracts), D(target), True, 1)
    return Decision(
        id=name, as_of=NOW, policy="p", policy_set="sha256:0", scope="account/main", mode="enforce",
        stage="close", level=1, previous_level=0, intents=(intent,),
    )  # fmt: skip


def closer_at(desk: Desk, store: Store, clock: VirtualClock) -> AccountExecutor:
    venue = adapter(AccountSpec("main", "paper", "swap", "USDT", None, {"market": desk.market}, {}))
    return AccountExecutor("main", venue, store, clock)


def passes(closer: AccountExecutor, clock: VirtualClock, seconds: float) -> bool:
    """Runs passes for `seconds`; whether work remains."""
    until = clock.monotonic() + seconds
    more = True
    while more and clock.monotonic() < until:
        more = asyncio.run(closer.advance())
    return more


def held(desk: Desk) -> Decimal:
    return sum((position.contracts for position in desk.seen.positions or ()), D(0))


def thin_market() -> Desk:
    """A market in which a tenth of the volume is available to us: 100 contracts a bar."""
    rules = replace(FREE, participation=D("0.1"))
    desk = Desk(wallet="1000000", rules=rules, volume="1000")
    desk.market.open_position("main", "A", "long", D(35_000))
    return desk


def test_a_close_follows_its_order_through_the_bars(store: Store) -> None:
    """350 contracts at 100 a bar: acknowledged, queried, and flat only when the last lot is filled."""
    desk, clock = thin_market(), VirtualClock()
    closer = closer_at(desk, store, clock)
    closer.adopt(commit(store, decision("350", "0")))
    seen = []
    for _ in range(3):
        assert passes(closer, clock, 5)
        seen.append((held(desk), closer.progress()[0].status))
        desk.pass_bar(A=bar("100"))
    assert seen == [(D(250), "closing"), (D(150), "closing"), (D(50), "closing")]
    assert not passes(closer, clock, 10)
    assert closer.progress()[0].status == "flat"
    assert [e.kind for e in store.journal("d1")] == [
        "planned", "sending", "acknowledged", "filled", "verified", "finished",
    ]  # fmt: skip


def test_a_higher_level_starts_while_a_lower_one_is_still_closing(store: Store) -> None:
    """A trim works through the bars; close-all follows, and together they close the book exactly once."""
    desk, clock = thin_market(), VirtualClock()
    closer = closer_at(desk, store, clock)
    closer.adopt(commit(store, decision("175", "175")))
    assert passes(closer, clock, 3)
    assert held(desk) == D(250)
    closer.adopt(commit(store, decision("250", "0", name="d2")))
    for _ in range(6):
        passes(closer, clock, 5)
        desk.pass_bar(A=bar("100"))
    assert not passes(closer, clock, 10)
    assert held(desk) == D(0)
    assert [closing.status for closing in closer.progress()] == ["flat", "flat"]
    sold = sum(fill.amount for fill in desk.seen.fills or () if fill.side == "sell")
    assert sold == D(350)


def test_a_liquidation_during_a_close_counts_as_closed(store: Store) -> None:
    """The venue closes the rest of the position itself: nothing more is sent, and the end is flat."""
    desk, clock = Desk(wallet="400", leverage="10"), VirtualClock()
    desk.market.open_position("main", "A", "long", D(3000))
    closer = closer_at(desk, store, clock)
    made = commit(store, decision("30", "0"))
    desk.pass_bar(A=bar("100", low="80", close="80"))
    assert held(desk) == D(0)
    closer.adopt(made)
    assert not passes(closer, clock, 10)
    assert (closer.progress()[0].status, [e.kind for e in store.journal("d1")]) == (
        "flat",
        ["planned", "verified", "finished"],
    )


def test_c9_dust_on_the_paper_market_is_blocked(store: Store) -> None:
    """A remainder below the smallest order is reported, and nothing raises."""
    desk, clock = Desk(instrument("A", amount_step="0.001", min_amount="1")), VirtualClock()
    desk.market.open_position("main", "A", "long", D(50))
    closer = closer_at(desk, store, clock)
    closer.adopt(commit(store, decision("0.5", "0")))
    assert not passes(closer, clock, 60)
    assert (closer.progress()[0].status, held(desk)) == ("blocked", D("0.5"))
