"""Which of the venue's answers are believed: sizes, empty books, and positions that are gone, reading by reading."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.decide.position_trust import Distrust, PositionTrust, TrustedBook, positions_of
from killswitch.journal.targets import PositionKey
from killswitch.model.snapshot import AccountSnapshot, Position

D = Decimal
BTC: PositionKey = ("BTC", "long")
ETH: PositionKey = ("ETH", "short")
PACE = ClosingPace(confirm_snapshots=3, confirm_after=5.0)


def account(*held: Position, **words: Any) -> AccountSnapshot:
    given: dict[str, Any] = {"market": "swap", "quality": "ok", "positions": held, "margin_used": D(0)}
    return AccountSnapshot(**{"account": "main", "venue": "v", "currency": "USDT"} | given | words)


def held(contracts: str, key: PositionKey = BTC) -> Position:
    return Position(key[0], key[1], D(contracts))


def test_positions_are_read_by_symbol_and_side() -> None:
    """Two are held; one of size 0 is not; what is not there is 0."""
    found = positions_of(account(held("4"), held("2", ETH), held("0", ("X", "long"))))
    assert isinstance(found, TrustedBook)
    assert (set(found.positions), found.unconfirmed) == ({BTC, ETH}, frozenset())
    assert (found.contracts(BTC), found.contracts(ETH), found.contracts(("X", "long"))) == (D(4), D(2), D(0))


@pytest.mark.parametrize("size", ["-1", "NaN", "Infinity"])
def test_a_size_that_cannot_be_is_no_answer(size: str) -> None:
    """Negative or no number: nothing in the whole answer is believed, however often it comes."""
    found = positions_of(account(held("4"), held(size, ETH)))
    assert isinstance(found, Distrust)
    assert (found.repeatable, "ETH short" in found.reason, size in found.reason) == (False, True, True)


@pytest.mark.parametrize("reason", ["timeout", None])
def test_an_answer_that_is_not_whole_says_nothing(reason: str | None) -> None:
    """It is not believed, and why is told where the venue's reader knows."""
    found = positions_of(account(held("4"), quality="stale", reason=reason))
    assert isinstance(found, Distrust)
    assert (found.repeatable, "stale" in found.reason, (reason or "reason") in found.reason) == (False, True, True)


def test_positions_that_are_not_told_are_unknown() -> None:
    """Which is not the same as none."""
    found = positions_of(account(positions=None))
    assert isinstance(found, Distrust)
    assert not found.repeatable


@pytest.mark.parametrize("market", ["swap", "future", "margin"])
def test_an_empty_book_must_agree_with_the_margin_in_use(market: str) -> None:
    """None in use: flat; some: a contradiction; not told, or no number: only if it repeats itself."""
    assert positions_of(account(market=market)) == TrustedBook({})
    contradiction = positions_of(account(market=market, margin_used=D("0.01")))
    assert isinstance(contradiction, Distrust)
    assert (contradiction.repeatable, "0.01" in contradiction.reason) == (False, True)
    for unknown in (None, D("NaN")):
        silent = positions_of(account(market=market, margin_used=unknown))
        assert isinstance(silent, Distrust)
        assert silent.repeatable


def test_an_account_without_margin_may_be_empty() -> None:
    """Spot needs no margin to say so."""
    assert positions_of(account(market="spot", margin_used=None)) == TrustedBook({})
    assert positions_of(account(held("1"), margin_used=None)) == TrustedBook({BTC: held("1")})


@pytest.mark.parametrize("market", ["swap", "spot"])
def test_a_book_of_nothing_but_zeros_must_repeat_itself(market: str) -> None:
    """It may be a page that got lost."""
    found = positions_of(account(held("0"), market=market))
    assert isinstance(found, Distrust)
    assert found.repeatable


def test_an_odd_answer_is_believed_the_third_time_in_a_row() -> None:
    """Twice it is not; a sound answer, or one that is no answer, in between begins anew."""
    trust, odd = PositionTrust(PACE), account(margin_used=None)

    def takes(snapshot: AccountSnapshot) -> bool:
        return isinstance(trust.evaluate(snapshot, {}, 0.0), TrustedBook)

    assert [takes(odd) for _ in range(4)] == [False, False, True, True]
    assert takes(account(held("1")))
    assert [takes(odd), takes(odd)] == [False, False]
    assert not takes(account(positions=None))
    assert [takes(odd) for _ in range(3)] == [False, False, True]


def test_a_position_that_is_gone_unexplained_is_doubted_for_long_enough_and_often_enough() -> None:
    """Three readings and five seconds, both."""
    trust = PositionTrust(PACE)

    def doubts(now: float, snapshot: AccountSnapshot | None = None) -> bool:
        found = trust.evaluate(snapshot or account(), {BTC: D(1)}, now)
        assert isinstance(found, TrustedBook)
        return BTC in found.unconfirmed

    assert [doubts(0.0), doubts(1.0), doubts(2.0), doubts(4.999)] == [True, True, True, True]
    assert not doubts(5.0)
    assert not doubts(6.0)
    assert not doubts(7.0, account(held("1")))
    assert [doubts(8.0), doubts(20.0), doubts(21.0)] == [True, True, False]


def test_a_position_that_our_own_orders_can_have_closed_is_not_doubted() -> None:
    """They leave 0 of it, or nobody expects it."""
    found = PositionTrust(PACE).evaluate(account(held("2", ETH)), {BTC: D(0), ETH: D(2)}, 0.0)
    assert found == TrustedBook({ETH: held("2", ETH)}, frozenset())


def test_each_position_is_doubted_by_itself() -> None:
    """One has been gone for three readings and the other since the last."""
    trust, both = PositionTrust(ClosingPace(confirm_snapshots=2, confirm_after=1.0)), {BTC: D(1), ETH: D(1)}
    trust.evaluate(account(held("1", ETH)), both, 0.0)
    found = trust.evaluate(account(), both, 1.0)
    assert isinstance(found, TrustedBook)
    assert found.unconfirmed == {ETH}


def test_no_answer_in_between_begins_the_doubt_anew() -> None:
    """What repeats itself must do so in a row."""
    trust = PositionTrust(ClosingPace(confirm_snapshots=2, confirm_after=0.0))
    for snapshot in (account(), account(positions=None), account()):
        found = trust.evaluate(snapshot, {BTC: D(1)}, 0.0)
    assert isinstance(found, TrustedBook)
    assert found.unconfirmed == {BTC}


def test_an_odd_answer_that_is_believed_still_doubts_what_is_gone_from_it() -> None:
    """Believed after two readings, and the position only after its five seconds."""
    trust, odd = PositionTrust(ClosingPace(confirm_snapshots=2, confirm_after=5.0)), account(margin_used=None)
    trust.evaluate(odd, {BTC: D(1)}, 0.0)
    assert trust.evaluate(odd, {BTC: D(1)}, 1.0) == TrustedBook({}, frozenset({BTC}))
    assert trust.evaluate(odd, {BTC: D(1)}, 5.0) == TrustedBook({}, frozenset())
