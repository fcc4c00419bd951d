"""Settlements: rows that they use up, netting that is provisional, and restarts in the middle of both.

1,000 contracts at 100 and a wallet of 100,000 unless stated otherwise; falls are worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.model.instant import HOUR, SECOND
from killswitch.model.snapshot import AccountSnapshot, Fill, Flow, Position
from killswitch.pnl_explain.settlements import DroppedFlow, SettlementRow, Settlements
from killswitch.signals.history.rows import HistoryState, StoredUnitValueRow, encode_row
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import drawdown_from_peak, loss_from_start
from tests.unit.pnl_explain.test_hidden_losses import account, at, deposit, fall, held, history, observe

NOON = 12 * HOUR


def row(amount: str, seconds: float = 0.0, *, moved: bool = True) -> SettlementRow:
    return SettlementRow(NOON + int(seconds * SECOND), Decimal(amount), moved)


def settled(amount: str, *parts: str) -> Settlements:
    """One settlement between noon and a second later."""
    found = Settlements()
    found.add(NOON, NOON + SECOND, Decimal(amount), [Decimal(part) for part in parts])
    return found


# Rows


@pytest.mark.parametrize(
    ("rows", "used"),
    [
        ([row("12000")], {0}),
        ([row("12120")], {0}),
        ([row("12121")], set()),
        ([row("12600", moved=False)], {0}),
        ([row("12601", moved=False)], set()),
        ([row("-12000")], set()),
        ([row("12000", -4.0)], {0}),
        ([row("12000", 5.0)], {0}),
        ([row("12000", -4.1)], set()),
        ([row("12000", 5.1)], set()),
        ([row("12000"), row("12000")], {0}),
        ([row("7000"), row("5000")], {0, 1}),
        ([row("7000"), row("9000"), row("5000")], {0, 2}),
        ([row("7000")], {0}),
        ([row("9000"), row("3000"), row("-500")], {0, 1}),
    ],
    ids=[
        "of its amount", "1% more", "more than 1% more", "profit, 5% more", "profit, more", "the other sign",
        "4 s before", "4 s after", "earlier", "later", "two of its amount", "one for each position",
        "each position and another one", "one position", "all of them together",
    ],
)  # fmt: skip
def test_a_settlement_uses_up_its_rows(rows: list[SettlementRow], used: set[int]) -> None:
    """12,000 were settled, 7,000 of one position and 5,000 of another."""
    assert settled("12000", "7000", "5000").use_up(rows) == used


def test_a_row_that_is_used_up_leaves_nothing_for_the_next_one() -> None:
    """The second of two equal rows is a transfer, whenever it arrives."""
    found = settled("12000")
    assert found.use_up([row("12000")]) == {0}
    assert found.use_up([row("12000")]) == set()


def test_the_rows_of_positions_may_arrive_one_after_the_other() -> None:
    """7,000, and later 5,000; a third one is none of this settlement."""
    found = settled("12000", "7000", "5000")
    assert found.use_up([row("7000")]) == {0}
    assert found.use_up([row("5000")]) == {0}
    assert found.use_up([row("7000")]) == set()


@pytest.mark.parametrize(("late", "kept"), [(HOUR, 2), (HOUR + 1, 1)])
def test_settlements_wait_an_hour_for_their_rows(late: int, kept: int) -> None:
    """Longer, and the next settlement forgets them."""
    found = settled("12000")
    found.add(NOON + late, NOON + SECOND + late, Decimal(7))
    assert len(found.recent) == kept


# Provisional netting


def test_what_was_netted_while_positions_lag_is_a_settlement_after_half_a_minute() -> None:
    """For 30 s it may be a flow; then only its row is waited for."""
    found = Settlements(provisional=DroppedFlow(NOON, NOON + SECOND, Decimal(8000)))
    assert found.dropped_by(NOON + 31 * SECOND) == 8000
    assert found.dropped_by(NOON + 31 * SECOND + 1) == 0
    assert found.use_up([row("8000")]) == {0}


Course = Callable[[int], AccountSnapshot]


def deposit_next_to_a_loss(second: int) -> AccountSnapshot:
    """At 5, 8,000 are lost and come; the positions show it at 8. At 20 the price falls to 88."""
    if second < 5:
        return account(second, "100000", [held(1000, "100")])
    if second < 8:
        return account(second, "108000", [held(1000, "100")], profit="-8000")
    return account(second, "108000", [held(1000, "92" if second < 20 else "88")])


def settled_while_positions_lag(second: int) -> AccountSnapshot:
    """12,000 of profit are settled at 5, and the positions show it at 8. At 20 the price falls to 106.4."""
    price = "112" if second < 20 else "106.4"
    if second < 5:
        return account(second, "100000", [held(1000, price)])
    if second < 8:
        return account(second, "112000", [held(1000, price)], profit="0")
    return account(second, "112000", [held(1000, price, "112")])


def settled_and_refilled(second: int) -> AccountSnapshot:
    """8,000 are lost by 4, settled and refilled at 5. At 20 the price falls to 89.5."""
    price = ("100" if second < 4 else "92") if second < 20 else "89.5"
    entry = "100" if second < 5 else "92"
    return account(second, "100000", [held(1000, price, entry)])


COURSES = [
    (deposit_next_to_a_loss, 12_000 / 108_000),
    (settled_while_positions_lag, 5600 / 112_000),
    (settled_and_refilled, 1 - 0.92 * 0.975),
]


def restarted(past: History) -> History:
    """Another history, from what this one stores."""
    encoder = msgspec.json.Encoder(decimal_format="string")
    rows = [msgspec.json.decode(encoder.encode(encode_row(each)), type=StoredUnitValueRow) for each in past.rows]
    state = msgspec.json.decode(encoder.encode(past.state()), type=HistoryState)
    found = history()
    found.restore(state, rows)
    return found


@pytest.mark.parametrize("restarts", [[], *([second] for second in range(3, 22, 2)), range(1, 30)])
@pytest.mark.parametrize(("course", "expected"), COURSES)
def test_a_restart_in_the_middle_changes_nothing(course: Course, expected: float, restarts: Iterable[int]) -> None:
    """Not at any second, and not at all of them."""
    past = history()
    for second in range(60):
        if second in restarts:
            past = restarted(past)
        observe(past, second, course(second))
    assert fall(past) == pytest.approx(expected, abs=1e-4)


def test_state_of_versions_without_settlements_is_restored() -> None:
    """The keys that they did not store are absent."""
    past = history()
    observe(past, 0, account(0, "100000", [held(1000, "100")]))
    stored = msgspec.to_builtins(past.state())
    del stored["peak_at"], stored["track"]["empty_below"], stored["ledger"]["transfers"]
    del stored["trails"]["main"]["settlements"], stored["trails"]["main"]["in_step"]
    other = history()
    other.restore(msgspec.convert(stored, HistoryState), [encode_row(each) for each in past.rows])
    observe(other, 1, account(1, "100000", [held(1000, "88")]))
    assert drawdown_from_peak(other) == (0.12, 0.12)


# Rows and changes


def test_a_row_of_profit_explains_the_loss_that_it_matches_exactly() -> None:
    """10,000 of funding are paid at 5, and 10,300 of loss are settled at 6: the row of 10,000 is of the funding."""
    past = history()
    for second in range(5):
        observe(past, second, account(second, "100000", [held(1000, "89.7")]))
    observe(past, 5, account(5, "90000", [held(1000, "89.7")]))
    paid = Flow("f", at(4.5), "funding", Decimal(-10_000), "USDT")
    for second in range(6, 60):
        rows = (paid,) if second == 8 else ()
        observe(past, second, account(second, "79700", [held(1000, "89.7", "89.7")], flows=rows))
    assert fall(past) == pytest.approx(10_000 / 89_700)


def test_a_deposit_with_a_row_is_no_settlement_that_no_position_shows() -> None:
    """12,000 are lost while positions cannot be read, and 12,000 come with a row."""
    past = history()
    for second in range(5):
        observe(past, second, account(second, "100000", [held(1000, "100")]))
    blind = account(5, "112000", profit="-12000", flows=(deposit(4.5, "12000"),))
    observe(past, 5, replace(blind, positions=None))
    for second in range(6, 60):
        observe(past, second, account(second, "112000", [held(1000, "88")]))
    assert fall(past) == pytest.approx(12_000 / 112_000)


def test_the_row_of_a_settlement_next_to_a_trade_is_used_up_by_it() -> None:
    """12,000 of two positions are settled, one of them is closed at its mark, 20,000 leave: the late row is 12,000."""
    past, other = history(), "Y/USDT:USDT"

    def both(price: str, entry: str) -> list[Position]:
        return [held(1000, price, entry), replace(held(1000, price, entry), symbol=other)]

    for second in range(5):
        observe(past, second, account(second, "100000", both("106", "100")))
    closed = Fill("f", at(4.6), other, "sell", Decimal(1000), Decimal(106), realized_pnl=Decimal(0))
    observe(past, 5, account(5, "92000", [held(1000, "106", "106")], fills=(closed,)))
    for second in range(6, 90):
        rows = (Flow("s", at(4.5), "funding", Decimal(12_000), "USDT"),) if second == 66 else ()
        observe(past, second, account(second, "92000", [held(1000, "106", "106")], flows=rows))
    assert fall(past) == pytest.approx(0.0, abs=1e-6)
    assert loss_from_start(past)[1] == pytest.approx(0.0, abs=1e-6)
    assert not past.ledger.rows


# Anywhere


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(85, 125), min_size=3, max_size=12), st.data())
def test_a_settlement_anywhere_in_a_course_of_prices_changes_no_unit_value(
    prices: list[int], data: st.DataObject
) -> None:
    """The wallet gains what the entry price takes from unrealised profit; equity is that of the plain course."""
    when = data.draw(st.integers(1, len(prices) - 1))
    plain, other = history(), history()
    for second, price in enumerate(prices):
        observe(plain, second, account(second, "100000", [held(1000, str(price))]))
        entry = prices[when] if second >= when else 100
        wallet = str(100_000 + 1000 * (entry - 100))
        observe(other, second, account(second, wallet, [held(1000, str(price), str(entry))]))
        assert other.track.value == pytest.approx(plain.track.value, rel=1e-9)
    assert not other.changes.unexplained
