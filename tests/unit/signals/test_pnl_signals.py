"""P&L signals: what is open, what the venue's rows realised in a window, and funding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import HOUR, MINUTE, to_micros
from killswitch.model.snapshot import AccountSnapshot, Balance, Fill, Flow, Rate
from killswitch.model.words import ReferenceCurrency
from killswitch.signals.signal_values import ColumnReader
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import START, account, after, fill, flow, position, rules
from tests.worlds.signals import SYMBOL, history_of, minutes, readings, restarted, values_of

INF = math.inf
UNKNOWN = (-INF, INF)
BOTH = pytest.mark.parametrize("restarts", [False, True], ids=["one-run", "restarts"])
DOWN = account(None, None, quality="down", reason="timeout")


# What is open


@pytest.mark.parametrize(
    ("answer", "money", "share"),
    [
        (account("100000", []), 0, 0),
        (account("90000", [position("A", "long", "-12000"), position("B", "short", "2000")]), -10000, -1 / 9),
        (account("99100", [position("A", "long", "-900")], unrealized=Decimal("-901.5")), -901.5, -901.5 / 99100),
        (account("-5", [position("A", "long", "-10")]), -10, -INF),
        (account("-5", [position("A", "long", "10")]), 10, INF),
        (account("0", []), 0, 0),
        (account("100", None, unrealized=Decimal(-7)), -7, -0.07),
    ],
    ids=["empty", "two", "of-one-answer", "debt-and-loss", "debt-and-gain", "nothing", "positions-unknown"],
)
def test_what_is_open_as_money_and_as_a_share_of_equity(answer: AccountSnapshot, money: float, share: float) -> None:
    """−10,000 of the 90,000 that are left are −11.1%; the profit of the answer with the equity comes first."""
    for signal, expected in (("pnl.unrealised", money), ("pnl.unrealised_share", share)):
        assert readings(signal, (), minutes(answer)) == [(pytest.approx(expected), pytest.approx(expected))]


def test_an_inverse_position_without_a_profit_is_computed_by_its_face() -> None:
    """100 contracts of 100 USD, long from 20,000, at 25,000: 10,000 × (1/20,000 − 1/25,000) = 0.1 BTC."""
    contract = rules("BTC/USD:BTC", contract_size="100", inverse=True)
    held = [position("BTC/USD:BTC", "long", contracts="100", entry_price="20000", mark_price="25000")]
    answer = account("2", held, currency="BTC", instruments=[contract])
    assert readings("pnl.unrealised", (), minutes(answer)) == [(pytest.approx(0.1), pytest.approx(0.1))]


@pytest.mark.parametrize("signal", ["pnl.unrealised", "pnl.unrealised_share"])
@pytest.mark.parametrize(
    "answer",
    [
        account("100", [position("BTC/USDT", "long", mark_price="50")], market="spot"),
        account("100", None),
        account(None, [position("A", "long", "5")]),
        DOWN,
    ],
    ids=["spot-without-entry", "positions-unknown", "no-equity", "down"],
)
def test_what_is_open_is_unknown(signal: str, answer: AccountSnapshot) -> None:
    """Spot without an entry price gives neither a profit nor the prices to compute it."""
    assert readings(signal, (), minutes(answer)) == [UNKNOWN]


def test_a_daily_settlement_makes_the_open_profit_zero_without_a_loss() -> None:
    """The entry becomes the mark, and 900 move to the wallet."""
    before, after_it = (
        account(
            "10900",
            [position(SYMBOL, "long", profit, contracts="1", entry_price=entry, mark_price="20900")],
            balances=(Balance("USDT", Decimal(wallet), wallet=Decimal(wallet)),),
            unrealized=Decimal(profit),
            instruments=[rules(SYMBOL)],
        )
        for profit, entry, wallet in (("900", "20000", "10000"), ("0", "20900", "10900"))
    )
    observed = minutes(before, after_it)
    assert readings("pnl.unrealised", (), observed) == [(900, 900), (0, 0)]
    assert readings("equity.loss_from_start", (), observed) == [(0, 0), (0, 0)]


def test_what_is_open_adds_up_in_the_reference_currency() -> None:
    """−100 USDT at 0.9 USD, and 50 of an account in USD."""
    usdt = account("1000", [position("A", "long", "-100")], name="a", rates=(Rate("USD", Decimal("0.9")),))
    usd = account("1000", [position("B", "long", "50")], name="b", currency="USD")
    found = readings("pnl.unrealised", (), minutes([usdt, usd]), reference=ReferenceCurrency("USD", 1, Decimal("0.01")))
    assert found == [(-40, -40)]


# Realised


def listed(at: datetime, fills: Sequence[Fill] = (), flows: Sequence[Flow] = (), **more: Any) -> AccountSnapshot:
    """A flat answer with complete lists of rows until now."""
    return account("10000", more.pop("held", []), fills=fills, flows=flows, fills_as_of=at, flows_as_of=at, **more)


def closing(id_: str, at: datetime, pnl: str | None, fee: str | None = "0", **more: Any) -> Fill:
    fields = {key: value for key, value in {"realized_pnl": pnl, "fee": fee}.items() if value is not None}
    return fill(id_, at, SYMBOL, "sell", "1", "100", fee_currency="USDT", **fields, **more)


def each_minute(
    *rows: tuple[Sequence[Fill], Sequence[Flow]] | None, **more: Any
) -> list[tuple[datetime, tuple[AccountSnapshot]]]:
    """A complete answer each minute, with these new rows."""
    found = []
    for place, new in enumerate(rows):
        at, (fills, flows) = after(minutes=place), new or ((), ())
        found.append((at, (listed(at, fills, flows, **more),)))
    return found


@BOTH
def test_realised_is_what_fills_made_less_fees_with_funding_interest_and_the_like(restarts: bool) -> None:
    """−40 − 0.5 of a fill, −12.5 + 3 funding, −1 interest, −2 fee, +0.25 rebate, +5 insurance; no deposit counts."""
    kinds = [("funding", "-12.5"), ("funding", "3"), ("interest", "-1"), ("fee", "-2"), ("rebate", "0.25"),
             ("insurance", "5"), ("deposit", "1000"), ("withdrawal", "-70"), ("transfer", "30")]  # fmt: skip
    at = after(minutes=2, seconds=-20)
    flows = [flow(f"f{place}", at, amount, kind) for place, (kind, amount) in enumerate(kinds)]
    observed = each_minute(None, None, ([closing("c", at, "-40", "0.5")], flows), None, None)
    found = readings("pnl.realised", (2 * MINUTE,), observed, restarts=restarts)
    # the window reaches back to the start from the third minute on; the rows leave it after 00:03:40
    assert found == [UNKNOWN, UNKNOWN, (-47.75, -47.75), (-47.75, -47.75), (0, 0)]
    paid = readings("pnl.funding_paid", (2 * MINUTE,), observed, restarts=restarts)
    assert paid == [UNKNOWN, UNKNOWN, (9.5, 9.5), (9.5, 9.5), (0, 0)]
    share = readings("pnl.funding_paid_share", (2 * MINUTE,), observed, restarts=restarts)
    assert share[2:] == [(0.00095, 0.00095), (0.00095, 0.00095), (0, 0)]


def test_both_ends_of_the_window_count() -> None:
    """A row of exactly a window ago, and one of now."""
    old, new = (flow(name, at, "-1", "funding") for name, at in (("old", after(minutes=1)), ("new", after(minutes=3))))
    observed = each_minute(None, ((), [old]), None, ((), [new]), None)
    assert readings("pnl.funding_paid", (2 * MINUTE,), observed)[2:] == [(1, 1), (2, 2), (1, 1)]


def test_a_row_that_is_reported_again_counts_once() -> None:
    """Fetches overlap, and a restart reads back."""
    row = flow("f", after(minutes=1), "-4", "funding")
    observed = each_minute(None, ((), [row]), ((), [row]), ((), [row]))
    assert readings("pnl.funding_paid", (2 * MINUTE,), observed, restarts=True)[2:] == [(4, 4), (4, 4)]


def test_a_late_row_counts_by_its_own_date() -> None:
    """It is dated a minute before the answer that has it first."""
    observed = each_minute(None, None, ((), [flow("f", after(minutes=1), "-4", "funding")]), None, None)
    assert readings("pnl.funding_paid", (2 * MINUTE,), observed)[2:] == [(4, 4), (4, 4), (0, 0)]


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (closing("c", START, None, position_side="long"), UNKNOWN),
        (closing("c", START, None, "1", position_side="short"), (-1.0, -1.0)),
        (closing("c", START, "5", None), UNKNOWN),
        (closing("c", START, None), UNKNOWN),
        (closing("c", START, "NaN"), UNKNOWN),
        (fill("c", START, SYMBOL, "buy", "1", "100", fee="1", fee_currency="USDT"), (-1.0, -1.0)),
        (fill("c", START, SYMBOL, "sell", "1", "100", fee="1", fee_currency="BNB", realized_pnl="2"), (-398, -398)),
        (fill("c", START, SYMBOL, "sell", "1", "100", fee="1", fee_currency="XYZ", realized_pnl="2"), UNKNOWN),
        (fill("c", START, SYMBOL, "sell", "1", "100", fee="1", realized_pnl="2"), UNKNOWN),
    ],
    ids=[
        "reduces",
        "opens-by-side",
        "no-fee",
        "reduces-net",
        "nan",
        "adds",
        "fee-in-bnb",
        "fee-without-price",
        "fee-of",
    ],
)
def test_a_fill_that_does_not_state_what_it_made_is_unknown_unless_it_surely_opens(
    new: Fill, expected: tuple[float, float]
) -> None:
    """A long of 10 is held; a BNB is 400."""
    bnb = Balance("BNB", Decimal(3), price=Decimal(400))
    held = [position(SYMBOL, "long", "0", contracts="10")]
    observed = each_minute(None, None, None, ([replace(new, at=after(minutes=3))], ()), held=held, balances=(bnb,))
    assert readings("pnl.realised", (2 * MINUTE,), observed)[-1] == expected


def test_of_two_fills_between_answers_the_second_may_reduce_what_the_first_opened() -> None:
    """Nothing was held before: a buy opens, the sell after it reduces, and states no P&L."""
    at = after(minutes=2, seconds=30)
    fills = [
        closing("b", at + timedelta(seconds=1), None),
        fill("a", at, SYMBOL, "buy", "2", "100", fee="0", fee_currency="USDT"),
    ]
    assert readings("pnl.realised", (2 * MINUTE,), each_minute(None, None, None, (fills, ())))[-1] == UNKNOWN
    opening = each_minute(None, None, None, (fills[1:], ()))
    assert readings("pnl.realised", (2 * MINUTE,), opening)[-1] == (0, 0)


@pytest.mark.parametrize("signal", ["pnl.realised", "pnl.funding_paid", "pnl.funding_paid_share"])
def test_rows_that_are_not_stated_to_be_complete_are_unknown(signal: str) -> None:
    """The venue states it until 00:03: known for `max_gap` after that, and then either sign may be missing."""
    observed = each_minute(None, None, None, None)
    silent = [(after(minutes=place), (account("10000", []),)) for place in range(4, 9)]
    found = readings(signal, (2 * MINUTE,), [*observed, *silent], max_gap=3 * MINUTE)
    assert found == [UNKNOWN] * 2 + [(0, 0)] * 5 + [UNKNOWN] * 2


def test_funding_needs_no_fills() -> None:
    """Where a venue does not state the fills to be complete, funding is known and what was realised is not."""
    observed = [(after(minutes=place), (account("10000", [], flows_as_of=after(minutes=place)),)) for place in range(4)]
    assert readings("pnl.funding_paid", (2 * MINUTE,), observed)[-1] == (0, 0)
    assert readings("pnl.realised", (2 * MINUTE,), observed)[-1] == UNKNOWN


def test_funding_of_an_account_in_debt_is_an_infinite_share() -> None:
    """Received funding is −∞; of nothing it is 0."""
    for amount, share in (("-1", INF), ("1", -INF), (None, 0.0)):
        rows = [] if amount is None else [flow("f", after(minutes=2), amount, "funding")]
        observed = [
            (
                after(minutes=place),
                (account("-5", [], flows=rows if place == 2 else [], flows_as_of=after(minutes=place)),),
            )
            for place in range(3)
        ]
        assert readings("pnl.funding_paid_share", (2 * MINUTE,), observed)[-1] == (share, share)


def test_rows_after_an_outage_of_more_than_a_day_are_not_complete() -> None:
    """A venue is read back a day; after that what came in between may be missing until the window is over."""
    observed = [
        (START + timedelta(hours=hours), (listed(START + timedelta(hours=hours)),)) for hours in (0, 1, 20, 46, 47, 48)
    ]
    found = readings("pnl.realised", (HOUR,), observed)
    assert found == [UNKNOWN, (0, 0), (0, 0), UNKNOWN, (0, 0), (0, 0)]


def test_a_window_begins_at_a_reset() -> None:
    """And counts as complete; what was paid before it is out."""
    used = SignalRef("pnl.funding_paid", (HOUR,))
    past, reader = history_of([used]), ColumnReader([used])
    row, later = (flow(str(at), at, amount, "funding") for at, amount in ((after(seconds=-9), "-4"), (START, "-1")))
    view = ScopeView(to_micros(START), True, (listed(START, flows=[row]),), {}, None)
    past.observe(view)
    assert reader.read(past, view).lo == [-INF]
    past.rebase(accept=False)
    at = after(minutes=1)
    view = ScopeView(to_micros(at), True, (listed(at, flows=[row, later]),), {}, None)
    past.observe(view)
    assert reader.read(past, view).lo == reader.read(past, view).hi == [1]


def test_a_longer_window_after_a_reload_is_complete_once_it_is_filled() -> None:
    """The rows of the shorter one were kept, and no others."""
    short, long = (SignalRef("pnl.funding_paid", (minutes_ * MINUTE,)) for minutes_ in (2, 5))
    past = history_of([short])
    for at, accounts in each_minute(((), [flow("f", START, "-4", "funding")]), None, None, None, None, None):
        past.observe(ScopeView(to_micros(at), True, accounts, {}, None))
    past = restarted(past, history_of([long]))
    found = []
    for place in range(6, 10):
        at = after(minutes=place)
        view = ScopeView(to_micros(at), True, (listed(at),), {}, None)
        past.observe(view)
        found.append(ColumnReader([long]).read(past, view).lo[0])
    assert found == [-INF, -INF, 0, 0]


def test_an_account_that_was_never_observed_realised_nothing_known() -> None:
    """Without accounts in the snapshot, too."""
    assert values_of("pnl.realised", [], arguments=(HOUR,)) == UNKNOWN
    view = ScopeView(to_micros(START), True, (), {}, None)
    used = SignalRef("pnl.realised", (HOUR,))
    past = history_of([used])
    past.observe(view)
    assert ColumnReader([used]).read(past, view).lo == [-INF]
