"""One evaluation of 200 triggers over 60 signals, confirmation included, against 200 hand-written lambdas.

The values walk at random, so that triggers start and end and confirmation clocks run; both sides get the same values.
A quarter of the triggers join two conditions. The lambdas only compare, without intervals,
unknown values or confirmation.

The part `gate`: an entry under 100 limits, judged in process, against a function by hand with the same comparisons.

The account holds 50 positions and has 50 resting orders; each of its symbols has a limit on orders and one on
positions, and the account has gross, leverage, free margin, the day and a price band. The view is prepared once, as a
gate prepares it when a view arrives, and 20 orders are reserved. The promise is 3 × the hand-written function, 25 µs in
the median and 50 µs at p99 on a quiet machine; what the tick adds for the view is compared with a millisecond.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from msgspec.structs import replace

from killswitch.engine.state import initial
from killswitch.engine.step import StageMachine, step
from killswitch.gate.files import replace_file
from killswitch.graph.limits import BandRule, DayRule, LimitAmount, LimitsRule, SizeRule
from killswitch.graph.lowering import lower
from killswitch.graph.nodes import (
    AnyOf,
    Compare,
    ConditionNode,
    EquityRule,
    Graph,
    Number,
    Place,
    ScopeRule,
    SignalRead,
    SignalRef,
    Trigger,
)
from killswitch.limits.question import Question
from killswitch.limits.reservations import Reservations
from killswitch.limits.verdict import book_of, verdict
from killswitch.limits.view import GateView, encode_gate_view
from killswitch.model.instant import MINUTE, SECOND
from killswitch.model.snapshot import Order, Position, Snapshot, WatchedPrice
from killswitch.runner.locks.gate_view import GateSources, GateViewWriter
from killswitch.runner.observers import TickReport
from tests.bench.measure import Measure, best_of
from tests.graphs import policy_set
from tests.runner_world import crash_policy
from tests.unit.limits.gates import NOW, asks, gate_account, limits, moment, usdt, view
from tests.worlds import rules

SIGNALS, TRIGGERS, TICKS, ROUNDS = 60, 200, 4000, 9
NOWHERE = Place("bench.yaml", 1, 1, "")

Values = list[float]


def measures() -> Iterator[Measure]:
    """The promise: at most the time of the lambdas."""
    random = Random(20210519)
    conditions, lambdas = _conditions(random)
    ticks = _values(random)
    texts: list[str | None] = [None] * SIGNALS
    columns = [(values, values, texts) for values in ticks]
    machine = StageMachine.of(_graph(conditions), lower(conditions))

    def ours() -> None:
        state, now = initial(), 1_600_000_000 * SECOND
        for column in columns:
            now += SECOND
            state = step(machine, state, column, now).state

    def reference() -> None:
        for values in ticks:
            [condition(values) for condition in lambdas]

    _check_same(machine, lambdas, ticks)
    best, against = best_of(ROUNDS, ours, reference)
    yield Measure(
        f"tick of {TRIGGERS} triggers over {SIGNALS} signals",
        best / TICKS * 1e6, against / TICKS * 1e6, f"{TRIGGERS} hand-written lambdas", 1.0, "µs",
    )  # fmt: skip


def _conditions(random: Random) -> tuple[list[ConditionNode], list[Callable[[Values], bool]]]:
    nodes: list[ConditionNode] = []
    texts: list[str] = []
    for position in range(TRIGGERS):
        parts = [
            (random.randrange(SIGNALS), round(random.uniform(0.01, 0.2), 3)) for _ in range(1 + (position % 4 == 0))
        ]
        compares = [Compare(">=", SignalRead(index), Number(value)) for index, value in parts]
        nodes.append(compares[0] if len(compares) == 1 else AnyOf(tuple(compares)))
        texts.append("lambda v: " + " or ".join(f"v[{index}] >= {value}" for index, value in parts))
    return nodes, [eval(text) for text in texts]


def _values(random: Random) -> list[Values]:
    """Values of each signal, a tick a row: steps of a percent of the range, kept inside it."""
    now = [random.uniform(0, 0.2) for _ in range(SIGNALS)]
    rows = []
    for _ in range(TICKS):
        now = [min(0.2, max(0.0, value + random.gauss(0, 0.002))) for value in now]
        rows.append(now)
    return rows


def _graph(conditions: list[ConditionNode]) -> Graph:
    triggers = tuple(
        Trigger(f"t{i}", condition, None, 2 * MINUTE, 0, "hold", None, NOWHERE)
        for i, condition in enumerate(conditions)
    )
    return Graph(
        policy="bench", digest="sha256:0", mode="observe", scope=ScopeRule("account", None, None, None, None),
        equity=EquityRule(10 * MINUTE, 0.001, MINUTE, None),
        signals=tuple(SignalRef("equity.drawdown", ((i + 1) * MINUTE,)) for i in range(SIGNALS)),
        position_signals=(),
        triggers=triggers, conditions=tuple(conditions), stages=(), rankings=(), groups=(), place=NOWHERE,
    )  # fmt: skip


def _check_same(machine: StageMachine, lambdas: list[Callable[[Values], bool]], ticks: list[Values]) -> None:
    """AssertionError unless both sides agree on the same values; the comparison would mean nothing."""
    for values in ticks[:100]:
        true, unknown = machine.evaluate(values, values, [None] * SIGNALS)
        expected = sum(1 << i for i, condition in enumerate(lambdas) if condition(values))
        if (true, unknown) != (expected, 0):
            raise AssertionError("the lambdas and the graph disagree")


SYMBOLS = tuple(f"C{number}/USDT:USDT" for number in range(50))
MEDIAN_US, P99_US, TIMES, TICK_TIMES = 25.0, 50.0, 3.0, 2.0
GATE_ROUNDS, TAIL_ROUNDS = 20_000, 2_000
ZERO, HUNDRED = Decimal(0), Decimal(100)


def limited() -> LimitsRule:
    """A hundred limits on sizes, and those of the account."""

    def per_symbol(most: int) -> tuple[SizeRule, ...]:
        amount = LimitAmount(Decimal(most), "money", "USDT")
        return tuple(SizeRule(symbols=(symbol,), at_most=amount) for symbol in SYMBOLS)

    return limits(
        order_size=per_symbol(10_000), position_size=per_symbol(50_000), gross=usdt(str(10**7)), leverage=Decimal(1000),
        free_margin=usdt("1"), price_band=(BandRule(at_most=Decimal("0.1")),),
        day=DayRule(loss=LimitAmount(Decimal("0.02"), "percent"), trades=10_000),
    )  # fmt: skip


def seen() -> GateView:
    """50 positions, 50 resting orders, and marks of 100."""
    held = [Position(symbol, "long", Decimal(10), mark_price=HUNDRED) for symbol in SYMBOLS]
    orders = tuple(Order(f"o{n}", symbol, "buy", Decimal(5), f"o{n}") for n, symbol in enumerate(SYMBOLS))
    watched = tuple(WatchedPrice(symbol, HUNDRED, bid=Decimal("99.9"), ask=Decimal("100.1")) for symbol in SYMBOLS)
    account = gate_account(
        *held, rule=limited(), orders=orders, watched=watched, instruments=[rules(symbol) for symbol in SYMBOLS],
        equity="10000000", free="10000000",
    )  # fmt: skip
    return view(account)


def by_hand(shown: GateView, reserved: Reservations) -> Callable[[str, Decimal, Decimal], bool]:
    """The same comparisons for a limit purchase, from tables that are prepared once."""
    (account,) = shown.accounts
    state, rule = account.state, account.limits
    assert rule is not None and rule.day is not None and state.free is not None and state.equity is not None
    assert rule.gross is not None and rule.leverage is not None and rule.free_margin is not None
    assert rule.day.loss is not None and rule.day.trades is not None and account.day is not None
    known = {each.symbol: each for each in state.instruments or ()}
    order_caps = {name: each.at_most.value for each in rule.order_size for name in each.symbols or ()}
    caps = {name: each.at_most.value for each in rule.position_size for name in each.symbols or ()}
    held = {each.symbol: each.contracts for each in state.positions or ()}
    entering: dict[str, Decimal] = {}
    for order in state.orders or ():
        entering[order.symbol] = entering.get(order.symbol, ZERO) + order.amount
    gross_before = sum((held[s] + entering[s]) * HUNDRED for s in SYMBOLS)
    ids = {each.client_order_id for each in state.orders or ()}
    free, equity, gross, leverage = state.free, state.equity, rule.gross.value, rule.leverage
    least, loss, trades = rule.free_margin.value, account.day.loss or ZERO, account.day.trades or 0
    most_loss, most_trades, band = rule.day.loss.value * equity, rule.day.trades, rule.price_band[0].at_most

    def allowed(symbol: str, amount: Decimal, price: Decimal) -> bool:
        pending = [each for each in reserved.approved if each.account == "main"]
        at = max(HUNDRED, price)
        value, extra = amount * at, ZERO
        mine = ZERO
        margin = ZERO
        for each in pending:
            worth = each.order.amount * max(HUNDRED, each.order.price or HUNDRED)
            extra += worth
            margin += each.margin
            if each.order.symbol == symbol:
                mine += worth
            if each.order.client_order_id in ids:
                return False
        step, minimum = known[symbol].amount_step, known[symbol].min_amount
        total = gross_before + extra + value
        worst = (held[symbol] + entering[symbol]) * HUNDRED + mine + value
        return not (
            (step and amount % step) or (minimum and amount < minimum) or abs(price - HUNDRED) > band * HUNDRED
            or value > order_caps[symbol] or worst > caps[symbol] or total > gross or total > leverage * equity
            or free - margin - value < least or loss >= most_loss or trades + len(pending) + 51 > most_trades
        )  # fmt: skip

    return allowed


def gate() -> Iterator[Measure]:
    """An entry, its reference, and what the view adds to a tick."""
    shown, at = seen(), moment()
    book = book_of(shown.accounts[0], at)
    held = Reservations()
    for number in range(20):
        order = asks("buy", "1", SYMBOLS[number], type="limit", price=HUNDRED, client_order_id=f"r{number}")
        held = verdict(Question(f"r{number}", "main", (order,)), shown, held, at, book).reservations
    assert len(held.approved) == 20
    asked = asks("buy", "1", SYMBOLS[7], type="limit", price=HUNDRED, client_order_id="mine")
    question, compared = Question("q", "main", (asked,)), by_hand(shown, held)
    assert verdict(question, shown, held, at, book).verdict.allowed
    assert compared(SYMBOLS[7], Decimal(1), HUNDRED)
    ours = _times(lambda: verdict(question, shown, held, at, book))
    reference = _times(lambda: compared(SYMBOLS[7], Decimal(1), HUNDRED))
    median = statistics.median(ours)
    yield Measure("a verdict under 100 limits", median, statistics.median(reference), "by hand", TIMES, unit="µs")
    yield Measure("its median", median, MEDIAN_US, "promised", 1.0, unit="µs")
    p99 = sorted(ours)[len(ours) * 99 // 100]
    machine = max(0.0, min(machine_tail(median), p99 - median))
    yield Measure("its p99", p99, P99_US, "promised", 1.0, unit="µs", machine=machine)
    yield Measure(
        "preparing a view", min(_times(lambda: book_of(shown.accounts[0], at), 200)), 1000.0, "a millisecond", unit="µs"
    )
    yield Measure(
        "encoding a view", min(_times(lambda: encode_gate_view(shown), 200)), 1000.0, "a millisecond", unit="µs"
    )
    with TemporaryDirectory() as folder:
        content = encode_gate_view(shown)
        written = _times(lambda: replace_file(Path(folder) / "view", content), 50)
        yield Measure("writing it next to the tick", statistics.median(written), 1000.0, "a millisecond", unit="µs")
        added = statistics.median(_ticks(Path(folder) / "gate.json"))
        yield Measure("what it adds to a tick of 20 accounts", added, 1000.0, "a millisecond", TICK_TIMES, unit="µs")


def _ticks(path: Path, ticks: int = 100, accounts: int = 20) -> list[float]:
    """Microseconds that the writer takes of each tick."""
    state = seen().accounts[0].state
    rows = tuple(
        replace(
            state, account=f"a{number}", positions_as_of=NOW, orders_as_of=NOW, fills=(), flows=(), instruments=None
        )
        for number in range(accounts)
    )
    rule = replace(limited(), accounts=tuple(row.account for row in rows))
    writer = GateViewWriter(path, replace(policy_set(crash_policy()), limits=(rule,)), None)
    writer.connect(
        GateSources(
            lambda _: 0.0,
            lambda _: (),
            lambda: NOW,
            lambda: 0.0,
            timedelta,
            dict.fromkeys(rule.accounts, True),
        )
    )
    report = TickReport(Snapshot(NOW, rows, "killswitch.snapshot/v1"), (), (), (), (), 0.0)
    found = _times(lambda: writer.ticked(report), ticks)
    writer.close(10.0)
    return found


def machine_tail(length: float) -> float:
    """Microseconds that this machine adds, in one of a hundred, to work of that length that allocates nothing."""
    rounds = max(1, int(length * 1000 / min(_times(lambda: _spin(1_000), 200))))
    found = sorted(_times(lambda: _spin(rounds), TAIL_ROUNDS))
    return found[len(found) * 99 // 100] - statistics.median(found)


def _spin(rounds: int) -> int:
    """Count, which is the same work each time."""
    total = 0
    for number in range(rounds):
        total += number
    return total


def _times(work: Callable[[], object], rounds: int = GATE_ROUNDS) -> list[float]:
    """Microseconds of each call."""
    found = []
    for _ in range(rounds):
        begun = time.perf_counter_ns()
        work()
        found.append((time.perf_counter_ns() - begun) / 1e3)
    return found
