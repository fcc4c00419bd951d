"""Position trust: which snapshots are believed, by sizes, empty books and missing positions, poll by poll."""

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


def account(*held: Position, **fields: Any) -> AccountSnapshot:
    given: dict[str, Any] = {"market": "swap", "quality": "ok", "positions": held, "margin_used": D(0)}
    return AccountSnapshot(**{"account": "main", "venue": "v", "currency": "USDT"} | given | fields)


def held(contracts: str, key: PositionKey = BTC) -> Position:
    return Position(key[0], key[1], D(contracts))


def test_positions_are_read_by_symbol_and_side() -> None:
    """Two are held; one of size 0 is not; a missing one is 0."""
    found = positions_of(account(held("4"), held("2", ETH), held("0", ("X", "long"))))
    assert isinstance(found, TrustedBook)
    assert (set(found.positions), found.unconfirmed) == ({BTC, ETH}, frozenset())
    assert (found.contracts(BTC), found.contracts(ETH), found.contracts(("X", "long"))) == (D(4), D(2), D(0))


@pytest.mark.parametrize("size", ["-1", "NaN", "Infinity"])
def test_an_impossible_size_makes_the_snapshot_untrusted(size: str) -> None:
    """Negative or no number: nothing in the whole snapshot is believed, however often it is repeated."""
    found = positions_of(account(held("4"), held(size, ETH)))
    assert isinstance(found, Distrust)
    assert (found.repeatable, "ETH short" in found.reason, size in found.reason) == (False, True, True)


@pytest.mark.parametrize("reason", ["timeout", None])
def test_a_snapshot_of_bad_quality_is_untrusted(reason: str | None) -> None:
    """It is not believed, with the adapter's reason where there is one."""
    found = positions_of(account(held("4"), quality="stale", reason=reason))
    assert isinstance(found, Distrust)
    assert (found.repeatable, "stale" in found.reason, (reason or "reason") in found.reason) == (False, True, True)


def test_missing_positions_are_unknown() -> None:
    """Which is not the same as none."""
    found = positions_of(account(positions=None))
    assert isinstance(found, Distrust)
    assert not found.repeatable


@pytest.mark.parametrize("market", ["swap", "future", "margin"])
def test_an_empty_book_must_agree_with_the_margin_in_use(market: str) -> None:
    """None in use: flat; some: a contradiction; missing, or no number: only if it repeats itself."""
    assert positions_of(account(market=market)) == TrustedBook({})
    contradiction = positions_of(account(market=market, margin_used=D("0.01")))
    assert isinstance(contradiction, Distrust)
    assert (contradiction.repeatable, "0.01" in contradiction.reason) == (False, True)
    for unknown in (None, D("NaN")):
        no_margin = positions_of(account(market=market, margin_used=unknown))
        assert isinstance(no_margin, Distrust)
        assert no_margin.repeatable


def test_an_account_without_margin_may_be_empty() -> None:
    """A spot account needs no margin to prove it."""
    assert positions_of(account(market="spot", margin_used=None)) == TrustedBook({})
    assert positions_of(account(held("1"), margin_used=None)) == TrustedBook({BTC: held("1")})


@pytest.mark.parametrize("market", ["swap", "spot"])
def test_a_book_of_nothing_but_zeros_must_repeat_itself(market: str) -> None:
    """It may be a lost page."""
    found = positions_of(account(held("0"), market=market))
    assert isinstance(found, Distrust)
    assert found.repeatable


def test_a_doubtful_snapshot_is_believed_the_third_time_in_a_row() -> None:
    """Twice it is not; a sound one, or one that is no answer, in between resets the count."""
    trust, doubtful = PositionTrust(PACE), account(margin_used=None)

    def trusts(snapshot: AccountSnapshot) -> bool:
        return isinstance(trust.evaluate(snapshot, {}, 0.0), TrustedBook)

    assert [trusts(doubtful) for _ in range(4)] == [False, False, True, True]
    assert trusts(account(held("1")))
    assert [trusts(doubtful), trusts(doubtful)] == [False, False]
    assert not trusts(account(positions=None))
    assert [trusts(doubtful) for _ in range(3)] == [False, False, True]


def test_a_position_that_vanished_unexplained_is_unconfirmed_for_three_polls_and_five_seconds() -> None:
    """Both are needed."""
    trust = PositionTrust(PACE)

    def is_unconfirmed(now: float, snapshot: AccountSnapshot | None = None) -> bool:
        found = trust.evaluate(snapshot or account(), {BTC: D(1)}, now)
        assert isinstance(found, TrustedBook)
        return BTC in found.unconfirmed

    assert [is_unconfirmed(0.0), is_unconfirmed(1.0), is_unconfirmed(2.0), is_unconfirmed(4.999)] == [
        True,
        True,
        True,
        True,
    ]
    assert not is_unconfirmed(5.0)
    assert not is_unconfirmed(6.0)
    assert not is_unconfirmed(7.0, account(held("1")))
    assert [is_unconfirmed(8.0), is_unconfirmed(20.0), is_unconfirmed(21.0)] == [True, True, False]


def test_a_position_that_our_own_orders_can_have_closed_is_confirmed() -> None:
    """They leave 0 of it, or nobody expects it."""
    found = PositionTrust(PACE).evaluate(account(held("2", ETH)), {BTC: D(0), ETH: D(2)}, 0.0)
    assert found == TrustedBook({ETH: held("2", ETH)}, frozenset())


def test_each_position_is_confirmed_separately() -> None:
    """One has been gone for three polls and the other since the last."""
    trust, both = PositionTrust(ClosingPace(confirm_snapshots=2, confirm_after=1.0)), {BTC: D(1), ETH: D(1)}
    trust.evaluate(account(held("1", ETH)), both, 0.0)
    found = trust.evaluate(account(), both, 1.0)
    assert isinstance(found, TrustedBook)
    assert found.unconfirmed == {ETH}


def test_an_unavailable_poll_resets_the_confirmation() -> None:
    """The same snapshot must repeat itself in a row."""
    trust = PositionTrust(ClosingPace(confirm_snapshots=2, confirm_after=0.0))
    for snapshot in (account(), account(positions=None), account()):
        found = trust.evaluate(snapshot, {BTC: D(1)}, 0.0)
    assert isinstance(found, TrustedBook)
    assert found.unconfirmed == {BTC}


def test_a_believed_doubtful_snapshot_still_leaves_vanished_positions_unconfirmed() -> None:
    """The snapshot is believed after two polls, and the position only after its five seconds."""
    trust, doubtful = PositionTrust(ClosingPace(confirm_snapshots=2, confirm_after=5.0)), account(margin_used=None)
    trust.evaluate(doubtful, {BTC: D(1)}, 0.0)
    assert trust.evaluate(doubtful, {BTC: D(1)}, 1.0) == TrustedBook({}, frozenset({BTC}))
    assert trust.evaluate(doubtful, {BTC: D(1)}, 5.0) == TrustedBook({}, frozenset())
