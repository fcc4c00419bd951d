"""freqtrade's protections as shipped policies, on lists of trades, against the naive reference of its documentation.

The reference (`tests/oracle/protections.py`) imports nothing of the product. What differs on purpose is a parameter of
it, or a test of its own here, and is named in the README of the set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.compile import compile_policies
from killswitch.graph.nodes import PolicySet
from killswitch.lab.recording import replay
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Fill, Order, Position, Snapshot
from killswitch.policy.loader import load
from tests.oracle import protections as freqtrade
from tests.oracle.protections import PairLock, Trade, is_locked
from tests.worlds import START, account, after, fill, position, rules, snapshot
from tests.worlds.firings import firings, policy_of

HOUR, DAY = 60, 24 * 60
BEGUN = 48 * HOUR + 20
"""The minute from which the longest window is known."""
PAIRS = ("A", "B")
BALANCE = 10_000
FOLDER = Path(__file__).parents[3] / "policies" / "freqtrade-protections"


def shipped(name: str, folder: Path, *changes: tuple[str, str]) -> PolicySet:
    """One of the four policies, with parts of its text replaced."""
    text = (FOLDER / "policy.yaml").read_text(encoding="utf-8")
    (mine,) = [part for part in text.split("\n---\n") if f"name: {name}\n" in part]
    for old, new in changes:
        assert old in mine
        mine = mine.replace(old, new)
    folder.mkdir(exist_ok=True)
    (folder / "policy.yaml").write_text(mine, encoding="utf-8")
    found, problems = compile_policies(load([folder]).documents)
    assert found is not None
    assert problems == ()
    return found


def fills_of(number: int, trade: Trade) -> list[tuple[int, Fill]]:
    """The two fills of a trade of stake ÷ 100 contracts at 100. The stop of one that was stopped rested before."""
    begin, end = ("buy", "sell") if trade.side == "long" else ("sell", "buy")
    made = Decimal(str(trade.ratio)) * 100
    price = 100 + made if trade.side == "long" else 100 - made
    contracts = str(Decimal(str(trade.stake)) / 100)
    stopped = {"order": f"stop{number}"} if trade.reason in ("stop_loss", "stoploss_on_exchange") else {}
    cause = "liquidation" if trade.reason == "liquidation" else "trade"
    opened, closed = after(minutes=trade.opened), after(minutes=trade.closed)
    return [
        (trade.opened, fill(f"o{number}", opened, trade.pair, begin, contracts, "100", position_side=trade.side)),
        (
            trade.closed,
            fill(
                f"c{number}", closed, trade.pair, end, contracts, str(price), position_side=trade.side, cause=cause,
                **stopped,
            ),
        ),
    ]  # fmt: skip


def recording(trades: Sequence[Trade], until: int) -> list[Snapshot]:
    """What a runner sees of the trades: a snapshot every ten minutes, and every minute around each fill."""
    rows = [row for number, trade in enumerate(trades) for row in fills_of(number, trade)]
    minutes = {*range(0, until, 10), *(at + near for at, _ in rows for near in range(-1, 8))}
    return [_seen(minute, trades, [row for at, row in rows if at == minute]) for minute in sorted(minutes)]


def _seen(minute: int, trades: Sequence[Trade], fills: Sequence[Fill]) -> Snapshot:
    held: dict[tuple[str, str], Decimal] = {}
    for trade in trades:
        if trade.opened <= minute < trade.closed:
            key = (trade.pair, trade.side)
            held[key] = held.get(key, Decimal(0)) + Decimal(str(trade.stake)) / 100
    positions: list[Position] = [
        position(pair, side, "0", contracts=str(size), entry_price="100", mark_price="100", notional=str(size * 100))
        for (pair, side), size in held.items()
    ]
    orders = [Order(f"bid{pair}", pair, "buy", Decimal(1), price=Decimal(1)) for pair in PAIRS]
    orders += [
        Order(f"stop{number}", trade.pair, "sell", Decimal(1), trigger_price=Decimal(90), reduce_only=True)
        for number, trade in enumerate(trades)
        if trade.opened <= minute < trade.closed
    ]
    made = sum(Decimal(str(each.ratio)) * Decimal(str(each.stake)) for each in trades if each.closed <= minute)
    now = after(minutes=minute)
    seen = account(
        str(BALANCE + made), positions, fills=fills, orders=orders, observed_at=now,
        instruments=[rules(pair) for pair in PAIRS],
    )  # fmt: skip
    return snapshot(now, seen)


def locks_of(policies: PolicySet, trades: Sequence[Trade], until: int) -> list[PairLock]:
    """The locks that the policies write, each until its end or the reset that lifts it."""
    found: list[PairLock] = []
    for each in replay(policies, recording(trades, until)):
        if not isinstance(each, Decision):
            continue
        kind, _, name = each.scope.partition("/")
        pair, at = name if kind == "symbol" else "*", _minute(each.as_of)
        if each.kind == "reset":
            found = [replace(lock, until=min(lock.until, at)) if lock.pair == pair else lock for lock in found]
        if each.lock is not None and each.stage is not None and each.lock.until is not None:
            found.append(PairLock(pair, at, _minute(each.lock.until)))
    return found


def _minute(at: datetime) -> int:
    return round((at - START).total_seconds() / 60)


def differing(one: Iterable[PairLock], other: Iterable[PairLock], until: int) -> list[tuple[int, str]]:
    """The minutes and pairs that only one of them locks."""
    ours, theirs = list(one), list(other)
    minutes = ((minute, pair) for minute in range(BEGUN, until) for pair in PAIRS)
    return [
        (minute, pair) for minute, pair in minutes if is_locked(ours, minute, pair) != is_locked(theirs, minute, pair)
    ]


def trades_of(*made: float, reason: str = "exit_signal", pair: str = "A", every: int = 30) -> list[Trade]:
    """Long trades of ten minutes, one after the other."""
    starts = [BEGUN + number * every for number in range(len(made))]
    return [Trade(pair, "long", at, at + 10, ratio, reason) for at, ratio in zip(starts, made, strict=True)]


# StoplossGuard


def test_four_stops_within_24_candles_stop_trading_for_4_candles_after_the_last(tmp_path: Path) -> None:
    """Only "if trade_limit or more trades resulted in stoploss": three do not, four do, of all pairs together."""
    policies = shipped("freqtrade-stoploss-guard", tmp_path)
    three = trades_of(-0.1, -0.1, -0.1, reason="stop_loss")
    four = [*three[:2], *(replace(each, pair="B") for each in trades_of(0, 0, -0.1, -0.1, reason="stop_loss")[2:])]
    assert locks_of(policies, three, BEGUN + 2 * DAY) == []
    assert locks_of(policies, four, BEGUN + 2 * DAY) == [PairLock("*", four[3].closed, four[3].closed + 4 * HOUR)]
    assert (
        differing(locks_of(policies, four, BEGUN + DAY), freqtrade.stoploss_guard(four, DAY, 4, 240), BEGUN + DAY) == []
    )


def test_a_further_stop_prolongs_the_lock_to_4_candles_after_it_and_locks_again_after_its_end(tmp_path: Path) -> None:
    """`until` counts from the last losing stop that was looked at, not from the first lock."""
    trades = trades_of(*[-0.01] * 4, reason="stop_loss")
    last = trades[-1].closed
    trades += [Trade("A", "long", at, at + 10, -0.01, "stop_loss") for at in (last + 100, last + 600)]
    found = locks_of(shipped("freqtrade-stoploss-guard", tmp_path), trades, BEGUN + 2 * DAY)
    assert [lock.until - lock.since for lock in found] == [240] * 3
    assert differing(found, freqtrade.stoploss_guard(trades, DAY, 4, 240), BEGUN + 2 * DAY) == []


@pytest.mark.parametrize(
    ("reason", "ratio", "locks"),
    [
        ("stop_loss", -0.01, True), ("stoploss_on_exchange", -0.01, True), ("liquidation", -0.01, True),
        ("stop_loss", 0.01, False), ("stop_loss", 0.0, False), ("exit_signal", -0.01, False),
    ],
)  # fmt: skip
def test_only_stops_whose_profit_was_negative_count(tmp_path: Path, reason: str, ratio: float, locks: bool) -> None:
    """Only "if the resulting profit was negative"; another losing close may be a hidden stop: unknown, hold."""
    trades = trades_of(*[ratio] * 4, reason=reason)
    assert bool(freqtrade.stoploss_guard(trades, DAY, 4, 240)) == locks
    assert bool(locks_of(shipped("freqtrade-stoploss-guard", tmp_path), trades, BEGUN + DAY)) == locks


def test_the_window_is_strict(tmp_path: Path) -> None:
    """Only trades "completed after current_time − lookback_period": exactly 24 h ago is out, a minute later is in."""
    policies = shipped("freqtrade-stoploss-guard", tmp_path)
    for early, locks in ((0, False), (1, True)):
        trades = trades_of(*[-0.01] * 3, reason="stop_loss")
        first = trades[0].closed
        trades.append(Trade("A", "long", first + DAY - early - 10, first + DAY - early, -0.01, "stop_loss"))
        assert bool(freqtrade.stoploss_guard(trades, DAY, 4, 240)) == locks
        assert bool(locks_of(policies, trades, BEGUN + 2 * DAY)) == locks


def test_only_per_pair_drops_the_lock_of_all_pairs_only(tmp_path: Path) -> None:
    """With `each: symbol`, four stops of one pair lock that pair; two of each of two pairs lock nothing."""
    each = ("{each: account, match: {}}", "{each: symbol, match: {}}")
    policies = shipped("freqtrade-stoploss-guard", tmp_path, each)
    four = trades_of(*[-0.01] * 4, reason="stop_loss")
    mixed = [replace(trade, pair=PAIRS[number % 2]) for number, trade in enumerate(four)]
    for trades in (four, mixed):
        wanted = freqtrade.stoploss_guard(trades, DAY, 4, 240, only_per_pair=True)
        assert differing(locks_of(policies, trades, BEGUN + DAY), wanted, BEGUN + DAY) == []


def test_only_per_side_looks_at_one_side(tmp_path: Path) -> None:
    """`side: long` counts no short. It locks both sides: a lock of one side is an action of its own."""
    policies = shipped("freqtrade-stoploss-guard", tmp_path, ('"stop", "scope", "any"', '"stop", "scope", "long"'))
    four = trades_of(*[-0.01] * 4, reason="liquidation")
    shorts = [*four[:3], replace(four[3], side="short")]
    assert len(locks_of(policies, four, BEGUN + DAY)) == 1
    assert locks_of(policies, shorts, BEGUN + DAY) == []


# MaxDrawdown


def with_twenty(*made: float) -> list[Trade]:
    """These trades after as many of no profit as make twenty."""
    return trades_of(*[0.0] * (20 - len(made)), *made)


@pytest.mark.parametrize("mode", ["ratios", "equity"])
@pytest.mark.parametrize(
    "made", [(0.05, -0.15, -0.10), (-0.25,), (-0.20,), (0.1, -0.19), (-0.5, -0.5, -0.5, 0.5, -0.9)]
)
def test_trading_stops_for_12_candles_if_the_drawdown_is_above_20_percent(
    tmp_path: Path, mode: str, made: tuple[float, ...]
) -> None:
    """Only "if max-drawdown is > 20%", by ratios, or of the balance; a fall from the first trade counts."""
    policies = shipped("freqtrade-max-drawdown", tmp_path, ('"ratios"', f'"{mode}"'))
    trades, until = with_twenty(*made), BEGUN + 2 * DAY
    if mode == "equity":
        trades = [replace(each, stake=4000.0) for each in trades]
    wanted = freqtrade.max_drawdown(trades, 2 * DAY, 20, 12 * HOUR, 0.2, mode, BALANCE, winners_lock=False)
    assert differing(locks_of(policies, trades, until), wanted, until) == []


def test_nineteen_trades_are_too_few_for_a_drawdown(tmp_path: Path) -> None:
    """It takes "a minimum of trade_limit trades"."""
    trades = with_twenty(-0.5, -0.5)[1:]
    assert locks_of(shipped("freqtrade-max-drawdown", tmp_path), trades, BEGUN + DAY) == []


def test_l5_a_winner_does_not_begin_the_lock_of_a_drawdown_again(tmp_path: Path) -> None:
    """freqtrade#7170: there a winner during the lock prolongs it, since any trade counts. Here only a loss does."""
    trades = with_twenty(-0.3)
    last = trades[-1].closed
    trades.append(Trade("A", "long", last + 100, last + 110, 0.05, "exit_signal"))
    theirs = freqtrade.max_drawdown(trades, 2 * DAY, 20, 12 * HOUR, 0.2)
    found = locks_of(shipped("freqtrade-max-drawdown", tmp_path), trades, BEGUN + 2 * DAY)
    assert max(lock.until for lock in theirs) == last + 110 + 12 * HOUR
    assert [lock.until for lock in found] == [last + 12 * HOUR]
    loser = [*trades[:-1], replace(trades[-1], ratio=-0.05)]
    again = locks_of(shipped("freqtrade-max-drawdown", tmp_path), loser, BEGUN + 2 * DAY)
    assert [lock.until for lock in again] == [last + 12 * HOUR, last + 110 + 12 * HOUR]


# LowProfitPairs


@pytest.mark.parametrize("made", [(-0.01, 0.01), (0.01, 0.005), (0.01, 0.011), (0.01,), (-0.5,), (0.01, 0.01, -0.02)])
def test_a_pair_below_the_required_profit_is_locked_for_an_hour(tmp_path: Path, made: tuple[float, ...]) -> None:
    """An "overall profit ratio" below 2% of at least two trades of the pair; the other pair goes on."""
    policies, until = shipped("freqtrade-low-profit-pairs", tmp_path), BEGUN + DAY
    trades = [*trades_of(*made), *(replace(each, opened=each.opened + 200, closed=each.closed + 200)
              for each in trades_of(0.05, 0.05, pair="B"))]  # fmt: skip
    wanted = freqtrade.low_profit_pairs(trades, 6 * HOUR, 2, HOUR, 0.02)
    assert differing(locks_of(policies, trades, until), wanted, until) == []


def test_the_minimum_of_low_profit_counts_both_sides(tmp_path: Path) -> None:
    """A long and a short of one pair are two trades."""
    long, short = trades_of(-0.01, -0.01)
    trades = [long, replace(short, side="short")]
    found = locks_of(shipped("freqtrade-low-profit-pairs", tmp_path), trades, BEGUN + DAY)
    assert found == [PairLock("A", short.closed, short.closed + HOUR)]
    assert found == freqtrade.low_profit_pairs(trades, 6 * HOUR, 2, HOUR, 0.02)


def test_the_worst_symbol_of_an_account_mixes_pairs_where_a_machine_for_each_does_not(tmp_path: Path) -> None:
    """Two good trades of A and one bad one of B: no pair is low by two trades, and `worst_symbol` says so of both."""
    account_wide = [
        ('("6h", "scope")', '("6h", "worst_symbol")'),
        ('"any", "scope", "any")', '"any", "worst_symbol", "any")'),
        ("{each: symbol, match: {}}", "{each: account, match: {}}"),
    ]
    trades = [*trades_of(0.05, 0.05), trades_of(0, 0, -0.01, pair="B")[2]]
    assert freqtrade.low_profit_pairs(trades, 6 * HOUR, 2, HOUR, 0.02) == []
    assert locks_of(shipped("freqtrade-low-profit-pairs", tmp_path), trades, BEGUN + DAY) == []
    mixed = locks_of(shipped("freqtrade-low-profit-pairs", tmp_path / "mixed", *account_wide), trades, BEGUN + DAY)
    assert [lock.pair for lock in mixed] == ["*"]


# CooldownPeriod


@pytest.mark.parametrize("ratio", [0.05, -0.05])
def test_l5_a_pair_cools_down_after_a_winner_too(tmp_path: Path, ratio: float) -> None:
    """Whatever the trade made: the pair alone, from its last close on."""
    policies, until = shipped("freqtrade-cooldown-period", tmp_path), BEGUN + DAY
    trades = trades_of(ratio, ratio, ratio, every=70)
    found = locks_of(policies, trades, until)
    assert differing(found, freqtrade.cooldown_period(trades, 2 * HOUR), until) == []
    assert {lock.pair for lock in found} == {"A"}


# All of them


NAMES = {
    "freqtrade-stoploss-guard": lambda trades: freqtrade.stoploss_guard(trades, DAY, 4, 4 * HOUR),
    "freqtrade-max-drawdown": lambda trades: freqtrade.max_drawdown(
        trades, 2 * DAY, 20, 12 * HOUR, 0.2, winners_lock=False
    ),
    "freqtrade-low-profit-pairs": lambda trades: freqtrade.low_profit_pairs(trades, 6 * HOUR, 2, HOUR, 0.02),
    "freqtrade-cooldown-period": lambda trades: freqtrade.cooldown_period(trades, 2 * HOUR),
}  # fmt: skip


@st.composite
def lists_of_trades(draw: st.DrawFn) -> list[Trade]:
    """Trades of both pairs and sides, at least eleven minutes apart, so that each close is seen as one of its own."""
    found, at = list[Trade](), BEGUN
    for _ in range(draw(st.integers(1, 26))):
        at += draw(st.integers(11, 90))
        ratio = draw(st.sampled_from([-0.12, -0.05, -0.01, 0.0, 0.005, 0.03]))
        reason = draw(st.sampled_from(["stop_loss", "liquidation"])) if ratio < 0 else "exit_signal"
        pair, side = draw(st.sampled_from(PAIRS)), draw(st.sampled_from(["long", "short"]))
        found.append(Trade(pair, side, at - 10, at, ratio, reason))
    return found


def leave_within_5_minutes_of_a_close(trades: Sequence[Trade], lookback: int) -> bool:
    """Whether a trade leaves the window while the rule of the set still looks at a later close."""
    ends = {trade.closed + lookback for trade in trades}
    return any(trade.closed < end < trade.closed + 5 for trade in trades for end in ends)


def test_a_trade_that_leaves_the_window_soon_after_a_close_locks_at_once(tmp_path: Path) -> None:
    """3% keep the pair above 2% at the second close, and are 6 h old 3 minutes later: freqtrade waits for a third."""
    good, poor = Trade("A", "long", BEGUN, BEGUN + 10, 0.03, "exit_signal"), BEGUN + 6 * HOUR
    closes = (BEGUN + 100, poor + 7)
    rest = [Trade("A", "long", close - 10, close, 0.0, "exit_signal") for close in closes]
    assert leave_within_5_minutes_of_a_close([good, *rest], 6 * HOUR)
    assert freqtrade.low_profit_pairs([good, *rest], 6 * HOUR, 2, HOUR, 0.02) == []
    (found,) = locks_of(shipped("freqtrade-low-profit-pairs", tmp_path), [good, *rest], poor + 2 * HOUR)
    assert (found.pair, found.since) == ("A", poor + 10)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None)
@given(trades=lists_of_trades())
def test_the_policies_lock_when_the_reference_does(
    tmp_path_factory: pytest.TempPathFactory, name: str, trades: list[Trade]
) -> None:
    """At every minute and for every pair, but where a trade leaves the window within 5 minutes of a close."""
    assume(not leave_within_5_minutes_of_a_close(trades, 6 * HOUR))
    until = trades[-1].closed + 15 * HOUR
    found = locks_of(shipped(name, tmp_path_factory.mktemp("set")), trades, until)
    assert differing(found, NAMES[name](trades), until) == []


@pytest.mark.parametrize("name", NAMES)
def test_d9_nothing_is_locked_without_a_trade(tmp_path: Path, name: str) -> None:
    """hummingbot#1145: a switch that fires with no trades at all."""
    assert locks_of(shipped(name, tmp_path), [], BEGUN + DAY) == []


@pytest.mark.parametrize("name", NAMES)
def test_d8_open_losses_are_invisible_to_all_four(tmp_path: Path, name: str) -> None:
    """freqtrade#9977: half of the account is lost in a position that is still open. What sees it is equity."""
    calm = recording([], BEGUN)
    held = [position("A", "long", "-5000", contracts="100", entry_price="100", mark_price="50", notional="5000")]
    opened = fill("o", after(minutes=BEGUN), "A", "buy", "100", "100", position_side="long")
    lost = [
        snapshot(
            after(minutes=BEGUN + minute),
            account(
                str(BALANCE if minute == 0 else BALANCE // 2),
                held if minute else [position("A", "long", "0", contracts="100", entry_price="100", mark_price="100")],
                fills=[opened] if minute == 0 else [], observed_at=after(minutes=BEGUN + minute),
                instruments=[rules("A")],
            ),
        )
        for minute in range(10)
    ]  # fmt: skip
    decisions = [each for each in replay(shipped(name, tmp_path), [*calm, *lost]) if isinstance(each, Decision)]
    assert decisions == []
    fall = policy_of("signal: equity.drawdown, window: 24h, at_least: 20%")
    assert len(firings(fall, [*calm, *lost])) == 1


def test_lock_ends_are_not_rounded_up_to_a_candle(tmp_path: Path) -> None:
    """There they move to the next candle even from a boundary; here a lock ends when its time is over."""
    (trade,) = trades_of(0.05)
    found = locks_of(shipped("freqtrade-cooldown-period", tmp_path), [trade], BEGUN + DAY)
    assert [lock.until for lock in found] == [trade.closed + 2 * HOUR]
    assert freqtrade.next_candle(trade.closed + 2 * HOUR, 60) > trade.closed + 2 * HOUR
    assert freqtrade.next_candle(180, 60) == 240


def test_the_same_loss_again_is_two_losses_of_one_symbol() -> None:
    """`trades.count(w, loss, worst_symbol)`: two losses of A fire, one of A and one of B do not."""
    again = policy_of(
        "signal: trades.count, window: 24h, outcome: loss, per: worst_symbol, side: any, at_least: 2", max_gap="10m"
    )
    same = trades_of(-0.01, -0.01)
    assert len(firings(again, recording(same, BEGUN + 2 * HOUR))) == 1
    assert firings(again, recording([same[0], replace(same[1], pair="B")], BEGUN + 2 * HOUR)) == []
