"""The profit of marks and trades in the account's currency, and which trades no fill accounts for.

Expected values are the venues' own contract formulas, written out: linear k q (p₁ − p₀), inverse k q (1/p₀ − 1/p₁)."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Balance, Fill, Instrument, Mark, Position, Rate, Side
from killswitch.pnl_explain.decomposition import PositionMoves, UnfilledTrade, position_moves
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.pnl_explain.ledger import FillRow
from killswitch.pnl_explain.trades import Trades
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import drawdown
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, after, fill, position, rules

INVERSE, CALL, LINEAR = "BTC/USD:BTC", "BTC/USD:BTC-260327-60000-C", "X/USDT:USDT"
Rules = dict[tuple[str, str], Instrument]
WINDOW = 15 * MINUTE
SIDES: tuple[Side, Side] = ("long", "short")


def known(*each: Instrument) -> Rules:
    return {("main", it.symbol): it for it in each}


RULES = known(rules(LINEAR), rules(INVERSE, contract_size="100", inverse=True), rules(CALL))


def coins(*positions: Position, **more: Any) -> AccountSnapshot:
    """A BTC account of 10 BTC."""
    return account("10", positions, currency="BTC", **more)


def moves(
    before: AccountSnapshot, now: AccountSnapshot, fills: Sequence[Fill] = (), known_rules: Rules | None = None
) -> PositionMoves:
    return position_moves(before, now, RULES if known_rules is None else known_rules, fills)


# The value of a contract


def option(mark: str, pnl: str | None = None, **more: Any) -> Position:
    """500 calls on 1 BTC each, as Deribit lists them: the mark is the premium, the notional that of the underlying."""
    return position(CALL, "long", pnl, contracts="500", mark_price=mark, **{"notional": "500", **more})


def test_an_option_whose_notional_is_the_underlying_moves_with_its_premium() -> None:
    """500 calls whose premium falls from 0.020 to 0.019 BTC: −0.5 BTC, of a gross of 10."""
    found = moves(coins(option("0.020")), coins(option("0.019")))
    assert (found.by_marks, found.gross) == (Decimal("-0.5"), Decimal(10))


def test_an_option_of_unknown_size_is_not_valued_by_its_notional() -> None:
    """Neither by its marks nor, once it is gone, as 500 BTC that were traded."""
    still = moves(coins(option("0.020")), coins(option("0.019")), known_rules={})
    gone = moves(coins(option("0.020")), coins(), known_rules={})
    assert [(each.by_marks, each.traded, each.unfilled) for each in (still, gone)] == [(None, ZERO, ())] * 2


def test_an_option_listed_as_inverse_is_still_valued_by_its_premium() -> None:
    """Some venues call every contract inverse that settles in its base; a premium is in coins already."""
    found = moves(coins(option("0.020")), coins(option("0.019")), known_rules=known(rules(CALL, inverse=True)))
    assert found.by_marks == Decimal("-0.5")


@pytest.mark.parametrize(
    "price",
    [
        {"balances": (Balance("BTC", Decimal(2), price=Decimal(50_000)),)},
        {"rates": (Rate("BTC", 1 / Decimal(50_000)),)},
    ],
    ids=["by its price among the balances", "by the venue's rate"],
)
def test_a_contract_settled_in_another_coin_is_valued_at_the_coins_price(price: dict[str, Any]) -> None:
    """500 calls lose 0.001 BTC each in a USD account, BTC at 50,000: −25,000 USD, though no notional is given."""

    def dollars(mark: str) -> AccountSnapshot:
        return account("100000", [option(mark, notional=None)], currency="USD", **price)

    found = moves(dollars("0.020"), dollars("0.019"))
    assert found.by_marks is not None
    assert round(found.by_marks, 6) == -25_000


def test_without_a_contract_size_the_notional_gives_the_contract_value() -> None:
    """3 contracts of 600 USDT at a mark of 100 are 2 coins each: +10 on the mark makes 60."""
    held = [position(LINEAR, "long", "0", contracts="3", mark_price=mark, notional="600") for mark in ("100", "110")]
    found = moves(account("1000", held[:1]), account("1000", [held[1]]), known_rules={})
    # The later notional would be 660: as it is, each snapshot says something else, and the later one counts.
    assert found.by_marks == 3 * (Decimal(600) / 3 / 110) * 10


def test_a_known_contract_size_takes_precedence_over_an_older_notional() -> None:
    """The same with a size of 2: 60, whatever the notional still shows."""
    held = [position(LINEAR, "long", "0", contracts="3", mark_price=mark, notional="600") for mark in ("100", "110")]
    sized = known(rules(LINEAR, contract_size="2"))
    found = moves(account("1000", held[:1]), account("1000", [held[1]]), known_rules=sized)
    assert found.by_marks == 60


def test_a_round_trip_in_an_inverse_contract_that_no_position_shows_is_valued_as_inverse() -> None:
    """10 contracts of 100 USD bought at 50,000 and sold at 40,000: 1,000 × (1/50,000 − 1/40,000) = −0.005 BTC."""
    fills = [fill("1", after(), INVERSE, "buy", "10", "50000"), fill("2", after(), INVERSE, "sell", "10", "40000")]
    found = moves(coins(), coins(), fills)
    assert found.by_marks is not None
    assert round(found.by_marks, 12) == Decimal("-0.005")
    assert found.traded == Decimal(2_000) / 40_000


# What no fill accounts for


def inverse(contracts: str) -> Position:
    return position(INVERSE, "long", "0", contracts=contracts, mark_price="50000")


def test_an_inverse_contract_traded_without_a_fill_has_its_face_value_at_its_mark() -> None:
    """One contract of 100 USD at 50,000 is 0.002 BTC, and 20% of that is the most that its trade may have cost."""
    found = moves(coins(inverse("10")), coins(inverse("9")))
    (each,) = found.unfilled
    assert (each.notional, found.traded) == (Decimal("0.002"), Decimal("0.002"))
    trades = Trades()
    trades.observe(SECOND, 0, coins(inverse("10")), coins(inverse("9")), RULES, [])
    assert trades.bound(SECOND) == Decimal("0.0004")


@given(st.booleans(), st.integers(1, 9), st.integers(1, 10_000), st.integers(1, 500))
def test_an_unreported_trade_counts_with_its_notional(is_inverse: bool, contracts: int, mark: int, size: int) -> None:
    """Linear: contracts × size × mark; inverse: contracts × size ÷ mark, in the account's currency."""
    sized = known(rules("X", contract_size=str(size), inverse=is_inverse))
    held = position("X", "long", "0", contracts=str(contracts), mark_price=str(mark))
    (each,) = moves(account("1000", [held]), account("1000"), known_rules=sized).unfilled
    face = Decimal(contracts) * size
    assert each.notional == pytest.approx(face / mark if is_inverse else face * mark, rel=Decimal("1e-12"))


def test_the_price_effect_of_a_trade_shrinks_with_its_unreported_part() -> None:
    """10 sold without fills while the mark fell from 100 to 90; a fill reports 9: 10 × 1 and 20% of 90 are left."""
    before, now = account("1000", [position(LINEAR, "long", "0", contracts="10", mark_price="100")]), account("1000")
    trades, mark = Trades(), (Mark(LINEAR, Decimal(90)),)
    trades.observe(to_micros(after(seconds=2)), to_micros(after()), before, account("1000", marks=mark), RULES, [])
    assert trades.bound(to_micros(after(seconds=2))) == 10 * (18 + 10)
    late = fill("1", after(seconds=1), LINEAR, "sell", "9", "95")
    trades.match_late_fill(FillRow(now.account, late, None), "USDT")
    assert trades.bound(to_micros(after(seconds=2))) == 18 + 10


def test_a_trade_without_a_mark_is_explained_by_its_fill() -> None:
    """5 held at a notional of 500 vanish without a mark; the fill of all 5 comes later, and nothing is left."""
    before = account("1000", [position(LINEAR, "long", "0", contracts="5", notional="500")])
    trades = Trades()
    trades.observe(to_micros(after(seconds=2)), to_micros(after()), before, account("1000"), RULES, [])
    assert trades.bound(to_micros(after(seconds=2))) == 100
    trades.match_late_fill(FillRow("main", fill("1", after(seconds=1), LINEAR, "sell", "5", "95"), None), "USDT")
    assert trades.bound(to_micros(after(seconds=2))) == 0


# Hedge mode


def legs(long: int, short: int, **more: Any) -> AccountSnapshot:
    """USDT, hedge mode: both sides of one symbol at a mark of 100."""
    held = [
        position(LINEAR, side, "0", contracts=str(count), mark_price="100")
        for side, count in (("long", long), ("short", short))
        if count
    ]
    return account("100000", held, position_mode="hedge", **more)


def leg(id_: str, side: str, amount: int, leg_: Side | None = None, price: str = "100", at: float = 1) -> Fill:
    return fill(id_, after(seconds=at), LINEAR, side, str(amount), price, position_side=leg_)


def left_of(found: PositionMoves) -> list[tuple[Side | None, int]]:
    return [(each.side, int(each.quantity)) for each in found.unfilled]


@pytest.mark.parametrize("mode", ["hedge", None])
def test_both_legs_closed_with_both_fills_leave_nothing_unreported(mode: str | None) -> None:
    """Their fills net to zero, and so do the positions: that is no trade without fills."""
    fills = [leg("1", "sell", 5, "long"), leg("2", "buy", 5, "short")]
    before, now = legs(5, 5), legs(0, 0)
    if mode is None:
        before, now = account("1", before.positions), account("1")
    found = moves(before, now, fills)
    assert (found.is_covered, found.unfilled, found.traded) == (True, (), 1000)


def test_a_fill_of_one_leg_does_not_account_for_the_other() -> None:
    """−1 long and −2 short with a fill of 1 short: net, nothing is missing, but two contracts are."""
    found = moves(legs(5, 5), legs(4, 3), [leg("1", "buy", 1, "short")])
    assert left_of(found) == [("long", -1), ("short", 1)]
    assert not found.is_covered


def test_in_one_way_mode_a_fill_explains_a_reversal_whatever_side_it_names() -> None:
    """5 long become 5 short by a sale of 10; some venues call that a fill of the short."""
    before, now = legs(5, 0), legs(0, 5)
    one_way = [account("1", each.positions, position_mode="one_way") for each in (before, now)]
    for side in (None, *SIDES):
        assert moves(one_way[0], one_way[1], [leg("1", "sell", 10, side)]).unfilled == ()


def test_a_fill_without_a_side_is_assigned_to_the_opened_leg_first() -> None:
    """A sale of 1 beside −1 long and +1 short may be of either: what was closed must not appear to have a fill."""
    found = moves(legs(5, 5), legs(4, 6), [leg("1", "sell", 1)])
    assert left_of(found) == [("long", -1)]
    assert not found.is_covered


def test_a_fill_without_a_side_accounts_for_the_only_leg_that_moved_in_its_direction() -> None:
    """−1 long and −2 short, a sale of 1 and a purchase of 2: each has its fill."""
    found = moves(legs(5, 5), legs(4, 3), [leg("1", "sell", 1), leg("2", "buy", 2)])
    assert found.unfilled == ()


class Leg(Struct):
    side: Side
    change: int
    has_fill: bool
    names_side: bool

    @property
    def fill(self) -> Fill:
        bought = (self.change > 0) == (self.side == "long")
        named = self.side if self.names_side else None
        return leg(self.side, "buy" if bought else "sell", abs(self.change), named)


@given(st.tuples(*(st.builds(Leg, st.just(side), st.integers(-5, 5), st.booleans(), st.booleans()) for side in SIDES)))
def test_a_leg_closed_without_a_fill_never_counts_as_covered(both: tuple[Leg, Leg]) -> None:
    """Whichever fills are missing or name no side; and the unreported amount is exactly the true one."""
    fills = [each.fill for each in both if each.has_fill and each.change]
    found = moves(legs(5, 5), legs(5 + both[0].change, 5 + both[1].change), fills)
    missing = [each for each in both if each.change and not each.has_fill]
    if any(each.change < 0 for each in missing):
        assert not found.is_covered
    assert sum(abs(each.quantity) for each in found.unfilled) == sum(abs(each.change) for each in missing)


def observed(*seen: tuple[float, AccountSnapshot, list[Fill]]) -> Trades:
    trades = Trades()
    for (since, before, _), (at, now, known_fills) in pairwise(seen):
        rows = [FillRow("main", each, None) for each in known_fills]
        trades.observe(to_micros(after(seconds=at)), to_micros(after(seconds=since)), before, now, RULES, rows)
    return trades


def test_a_late_fill_accounts_for_its_own_leg() -> None:
    """−5 long and −5 short without fills: 20% of 1,000. The long leg's fill leaves 100, one that names no side 0."""
    now = to_micros(after(seconds=2))
    trades = observed((0, legs(5, 5), []), (2, legs(0, 0), []))
    assert trades.bound(now) == 200
    assert trades.match_late_fill(FillRow("main", leg("1", "sell", 5, "long", "98"), None), "USDT") == (now, -10)
    assert trades.bound(now) == 100
    assert trades.match_late_fill(FillRow("main", leg("2", "sell", 5, "long", "98"), None), "USDT") is None
    trades.match_late_fill(FillRow("main", leg("3", "buy", 5), None), "USDT")
    assert trades.bound(now) == 0


@pytest.mark.parametrize("names_side", [True, False])
def test_fills_known_before_their_legs_have_moved_account_for_them(names_side: bool) -> None:
    """The fills of 3 long and of 2 short at once, the positions a second later: nothing is unreported."""
    sides = SIDES if names_side else (None, None)
    fills = [leg("1", "sell", 3, sides[0], at=1.5), leg("2", "buy", 2, sides[1], at=1.5)]
    trades = observed((1, legs(5, 5), []), (2, legs(5, 5), fills), (3, legs(2, 3), []))
    expected = 0 if names_side else 20 * 4
    # Sides that are not named are known by their sum only: then 1 of the 5 contracts is accounted for, and 4 are not.
    assert trades.bound(to_micros(after(seconds=3))) == expected


def test_an_early_fill_of_one_leg_does_not_explain_the_other() -> None:
    """A purchase for the short leg is known; then the long leg closes without a fill."""
    fills = [leg("1", "sell", 3, "short", at=1.5)]
    trades = observed((1, legs(5, 5), []), (2, legs(5, 5), fills), (3, legs(2, 5), []))
    assert trades.bound(to_micros(after(seconds=3))) == 60


# End to end


def drawdown_of(snapshots: Sequence[AccountSnapshot], known_rules: Rules) -> float:
    """The lower bound of the drawdown after snapshots a second apart, with the ledger fetched at each."""
    past = History((WINDOW,), HOUR, EquityTerms(60 * SECOND, 0.001, 60 * SECOND))
    for second, each in enumerate(snapshots):
        past.observe(ScopeView(to_micros(after(minutes=20, seconds=second)), True, (each,), known_rules, None))
    return drawdown(past, WINDOW)[0]


def when(second: float) -> Any:
    return after(minutes=20, seconds=second)


def snapshot_at(
    second: int, equity: str, unrealized: str, positions: Sequence[Position], **more: Any
) -> AccountSnapshot:
    currency = more.pop("currency", "USDT")
    wallet = Decimal(equity) - Decimal(unrealized)
    stamps = dict.fromkeys(
        ("observed_at", "fills_as_of", "flows_as_of", "wallet_as_of", "positions_as_of"), when(second)
    )
    return account(
        equity, positions, currency=currency, balances=(Balance(currency, wallet, wallet=wallet),),
        unrealized=Decimal(unrealized), **stamps, **more,
    )  # fmt: skip


@pytest.mark.parametrize("late", [2, 60])
def test_options_beside_a_future_that_was_sold_without_a_fill_lose_only_their_premium(late: int) -> None:
    """100 BTC, 500 calls: the premium falls by 0.001, 0.5%, and a fifth of the future goes. Its fill comes `late`."""

    def at(second: int) -> AccountSnapshot:
        premium, future = ("0.020", "500") if second < 5 else ("0.019", "400")
        worth = 500 * Decimal(premium)
        held = [
            option(premium, str(worth - 10)),
            position(INVERSE, "long", "0", contracts=future, mark_price="50000"),
        ]
        sold = fill("f", when(4.5), INVERSE, "sell", "100", "50000", realized_pnl="0")
        fills = [sold] if second == 5 + late else []
        return snapshot_at(second, str(90 + worth), str(worth), held, currency="BTC", fills=fills)

    assert drawdown_of([at(second) for second in range(100)], RULES) == pytest.approx(0.005)


@pytest.mark.parametrize("late", [2, 20, 200])
def test_a_sweep_beside_an_inverse_contract_sold_without_a_fill_is_no_loss(late: int) -> None:
    """0.002 BTC of 10 are sold, and 3 leave without a row: such a trade cannot cost that."""

    def at(second: int) -> AccountSnapshot:
        equity, held = ("10", "10") if second < 5 else ("7", "9")
        sold = fill("f", when(4.5), INVERSE, "sell", "1", "50000", realized_pnl="0")
        fills = [sold] if second == 5 + late else []
        return snapshot_at(second, equity, "0", [inverse(held)], currency="BTC", fills=fills)

    assert drawdown_of([at(second) for second in range(100)], RULES) == 0


def test_a_sweep_beside_both_legs_closed_at_their_mark_is_no_loss() -> None:
    """500 long and 500 short are closed at 100 with fills, and 15% leaves in the same second without a row."""

    def at(second: int) -> AccountSnapshot:
        held = legs(500, 500).positions or () if second < 5 else ()
        fills = [leg("1", "sell", 500, "long", at=1204.5), leg("2", "buy", 500, "short", at=1204.5)]
        return snapshot_at(
            second, "100000" if second < 5 else "85000", "0", held, position_mode="hedge",
            marks=(Mark(LINEAR, Decimal(100)),), fills=fills if second == 5 else (),
        )  # fmt: skip

    assert drawdown_of([at(second) for second in range(100)], RULES) == 0


def test_a_fill_known_before_the_wallet_moves_does_not_hide_losses_of_other_trades() -> None:
    """1,000 from 100 are sold at 86, a tenth of it with a fill; the wallet holds the 14,000 a second after both."""

    def at(second: int) -> AccountSnapshot:
        held = [position(LINEAR, "long", "0", contracts="1000", mark_price="100")] if second < 5 else []
        sold = fill("1", when(4.5), LINEAR, "sell", "100", "86", realized_pnl="-1400")
        return snapshot_at(
            second, "100000" if second < 6 else "86000", "0", held, marks=(Mark(LINEAR, Decimal(100)),),
            fills=[sold] if second == 5 else (),
        )  # fmt: skip

    assert drawdown_of([at(second) for second in range(40)], RULES) == pytest.approx(0.14)


# Order and cost


def test_stored_state_follows_the_order_of_the_snapshot() -> None:
    """Not that of a set of names, which differs in each process."""
    names = [f"{name}/USDT:USDT" for name in "QWERTYUIOPASDFGHJKLZXCVBNM"]
    known_rules = known(*map(rules, names))
    held = [position(name, "long", "0", contracts="2", mark_price="100") for name in names]
    found = moves(account("1000", held), account("1000"), known_rules=known_rules)
    assert [each.symbol for each in found.unfilled] == names


class CountedRow(FillRow):
    """A row that counts how often rows are compared."""

    compared: ClassVar[int] = 0

    def __eq__(self, other: object) -> bool:
        CountedRow.compared += 1
        return super().__eq__(other)

    def __hash__(self) -> int:
        return id(self)


def test_the_fills_of_a_tick_are_not_compared_with_each_other() -> None:
    """4,000 fills in one answer took half a second when they were; the time grew with the square of their number."""
    held, times = legs(5, 0), [1 + k / 1e5 for k in range(200)]
    fills = [CountedRow("main", leg(f"f{at}", "buy", 1, at=at), None) for at in times]
    found = Trades().observe(to_micros(after(seconds=5)), to_micros(after(seconds=1.001)), held, held, RULES, fills)
    assert (len(found.timely), len(found.late)) == (99, 101)
    assert CountedRow.compared == 0


# Against the formulas


@pytest.mark.parametrize("is_inverse", [False, True], ids=["linear", "inverse"])
@pytest.mark.parametrize("both", [False, True], ids=["one-way", "hedge"])
def test_marks_and_fills_give_the_profit_of_the_contract_formula(is_inverse: bool, both: bool) -> None:
    """Longs, shorts and both, grown, cut, closed and turned, each trade at its own price."""
    draw = Random(f"{is_inverse}/{both}")
    size = Decimal(100) if is_inverse else Decimal("0.1")
    known_rules = known(rules(LINEAR, contract_size=str(size), inverse=is_inverse))

    def made(count: int, first: int, last: int) -> Decimal:
        return size * count * ((1 / Decimal(first) - 1 / Decimal(last)) if is_inverse else Decimal(last - first))

    for _ in range(150):
        marks = draw.randint(80, 120), draw.randint(80, 120)
        counts = [draw.randint(0, 9), draw.randint(0, 9) if both else 0]
        changes = [draw.randint(-counts[0], 5), draw.randint(-counts[1], 5) if both else 0]
        price = draw.randint(80, 120)
        expected, fills = ZERO, []
        for side, sign, count, change in zip(SIDES, (1, -1), counts, changes, strict=True):
            expected += sign * (made(count, *marks) + made(change, price, marks[1]))
            if change:
                bought = (change > 0) == (side == "long")
                fills.append(leg(side, "buy" if bought else "sell", abs(change), side, str(price)))
        before, now = (
            account(
                "1000",
                [
                    position(LINEAR, side, "0", contracts=str(count), mark_price=str(mark))
                    for side, count in zip(SIDES, held, strict=True)
                    if count
                ],
                position_mode="hedge" if both else "one_way",
            )
            for mark, held in ((marks[0], counts), (marks[1], [a + b for a, b in zip(counts, changes, strict=True)]))
        )
        found = moves(before, now, fills, known_rules)
        if any(counts) or any(changes):
            assert found.by_marks == pytest.approx(expected, abs=Decimal("1e-9"))
            assert found.unfilled == ()


def test_an_unreported_quantity_without_a_side_opens_nothing() -> None:
    """In one-way mode there is one position, and no leg that comes first."""
    each = UnfilledTrade(LINEAR, Decimal(1), Decimal(1), Decimal(100), inverse=False, closes=False)
    assert not each.opens
