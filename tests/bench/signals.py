"""One tick of many accounts with thirty different signals in use, against one with the four of `scale`.

Accounts, positions and prices are those of `scale`, with what the signals read besides: bids and asks, latencies and
failures of polls, resting orders, and a round trip now and then; nothing fires. The policy is `signals.yaml`, whose
signals are of loss, exposure, market, system and trades, over windows of an hour and samples of a minute that a restart
has restored. Ticks are twenty seconds apart: two of three add no sample. All policies see equal snapshots in turns, but
each has its own: a tick frees the snapshot before, which the last of several policies would do for all. Times are
medians of the processor time of this process.

    python -m tests.bench signals
    python -m tests.bench signals-10000
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import json as msgjson
from msgspec.structs import replace
from ruamel.yaml import YAML

from killswitch.graph.nodes import PolicySet
from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Fill, Health, Order, Position, Snapshot
from killswitch.model.store import SAMPLES, HistoryRow, MachineState
from killswitch.planning.interpreter import Interpreter
from killswitch.signals.history.prices import PriceSamples, StoredSamples
from killswitch.signals.history.pulse import Latencies
from killswitch.valuation.scope_view import ScopeView
from tests.backtests import written
from tests.bench.accounts import BEGINS, HELD, SYMBOLS, Holdings, snapshots, walk
from tests.bench.measure import Measure
from tests.bench.replay import compiled

TICKS = {10: 60, 100: 15, 1_000: 6, 10_000: 3}
"""Accounts → measured ticks: a third of them adds samples."""
WARM_UP = 3
BEFORE, LONG_APART = 14, timedelta(minutes=20)
"""Ticks before the restart: the longest window that a signal reads is of four hours."""
APART, EVERY, WINDOW = timedelta(seconds=20), MINUTE, HOUR
POLICY, FOUR = Path(__file__).with_suffix(".yaml"), Path(__file__).with_name("scale.yaml")
TIMES_FOUR = 2.0
"""The tick with thirty signals may take this many times that with four."""
LINEAR = 1.3
"""The time of an account may grow by this factor where there are ten times as many, that of a column not at all."""
MICROSECONDS = 3.0
"""The aim for the time of a trigger in microseconds, which a stream engine in Java publishes for a statement."""
TRADED = "TRADED/USDT:USDT"

Times = Mapping[str, tuple[float, float]]
"""Policy → milliseconds of a tick between samples, and of one that adds a sample."""


def measures() -> Iterator[Measure]:
    """Promised: twice the tick with four signals, linear in accounts and in the number of columns."""
    yield from _of_accounts((10, 100, 1_000))
    yield from _memory()


def ten_thousand() -> Iterator[Measure]:
    """The same for 10,000 accounts next to 1,000."""
    yield from _of_accounts((1_000, 10_000))


def _of_accounts(counts: Sequence[int]) -> Iterator[Measure]:
    each: dict[int, float] = {}
    triggers = _triggers()
    for accounts in counts:
        times = tick_times(_policies(triggers), accounts, TICKS[accounts])
        name = f"tick of {accounts:,} accounts × {HELD} positions, {len(triggers)} signals"
        yield Measure(name, times["thirty"][0], times["four"][0], "4 signals", TIMES_FOUR)
        yield Measure(f"{name}, adding samples", times["thirty"][1], times["four"][1], "4 signals", TIMES_FOUR)
        thirty, half = times["thirty"][0], times["fifteen"][0]
        yield Measure(f"{name}, of a column", thirty / 30, half / 15, "of a column among 15", LINEAR)
        of_trigger = thirty / accounts / len(triggers) * 1e3
        yield Measure(f"{name}, of a trigger", of_trigger, MICROSECONDS, "aimed at", None, "µs")
        each[accounts] = thirty / accounts * 1e3
        if accounts // 10 in each:
            name = f"time of an account among {accounts:,}, {len(triggers)} signals"
            yield Measure(name, each[accounts], each[accounts // 10], f"among {accounts // 10:,}", LINEAR, "µs")


# Policies


def _triggers() -> dict[str, Any]:
    """The triggers of `signals.yaml`, by name, as written."""
    policy = next(iter(YAML(typ="safe", pure=True).load_all(POLICY.read_text(encoding="utf-8"))))
    triggers: dict[str, Any] = policy["spec"]["triggers"]
    return triggers


def _policies(triggers: Mapping[str, Any]) -> Mapping[str, PolicySet]:
    """The four signals of `scale`, every second one of the thirty, and all of them."""
    return {
        "four": compiled(FOUR),
        "fifteen": _with({name: triggers[name] for name in [*triggers][::2]}),
        "thirty": _with(triggers),
    }


def _with(triggers: Mapping[str, Any]) -> PolicySet:
    """The policy with these triggers."""
    documents = [*YAML(typ="safe", pure=True).load_all(POLICY.read_text(encoding="utf-8"))]
    documents[0]["spec"]["triggers"] = dict(triggers)
    return written("\n---\n".join(msgjson.encode(each).decode() for each in documents))


# Ticks


def tick_times(policies: Mapping[str, PolicySet], accounts: int, ticks: int) -> Times:
    """The median processor times of ticks between samples and of those that add some, in milliseconds."""
    holdings = Holdings.of(accounts)
    interpreters = {name: restored(policy, holdings) for name, policy in policies.items()}
    begins = BEGINS + (BEFORE - 1) * LONG_APART + APART
    marks = walk(WARM_UP + ticks)
    streams = {name: lively(snapshots(holdings, marks, APART, begins=begins)) for name in policies}
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in policies}
    for number in range(WARM_UP + ticks):
        for name, interpreter in interpreters.items():
            snapshot = next(streams[name])
            adds_samples = to_micros(snapshot.as_of) % EVERY == 0
            if accounts >= 100:
                gc.collect()
            begun = time.process_time()
            outcome = interpreter.tick(snapshot)
            elapsed = time.process_time() - begun
            if number >= WARM_UP:
                times[name][adds_samples].append(elapsed * 1e3)
            if outcome.decisions:
                raise AssertionError("something fires: the ticks are no longer equal")
    _check_known(interpreters["thirty"])
    return {name: (median(between), median(at)) for name, (between, at) in times.items()}


def _check_known(interpreter: Interpreter) -> None:
    """AssertionError if a trigger is unknown for every account: it would cost less than it does.

    `one-side` is unknown wherever nothing is lost, at the same cost.
    """
    machines = interpreter.status()
    known = {each.name for machine in machines for each in machine.triggers if each.truth is not None}
    unknown = {each.name for machine in machines for each in machine.triggers} - known - {"one-side"}
    if unknown:
        raise AssertionError(f"these are unknown for every account: {', '.join(sorted(unknown))}")


def restored(policies: PolicySet, holdings: Holdings) -> Interpreter:
    """An interpreter that was started again after four hours, with the samples of a window."""
    begun, again = Interpreter(policies), Interpreter(policies)
    unit_values: dict[str, list[HistoryRow]] = {}
    for snapshot in lively(snapshots(holdings, walk(BEFORE), LONG_APART)):
        begun.tick(snapshot)
        for row in begun.rows():
            unit_values.setdefault(row.scope, []).append(row)
    states: tuple[MachineState, ...] = begun.states()
    sampled = msgjson.encode(_samples(to_micros(snapshot.as_of)))

    def rows(policy: str, scope: str, since: int) -> list[HistoryRow]:
        if not scope.endswith(SAMPLES):
            return unit_values[scope]
        account = scope.removesuffix(SAMPLES).removeprefix("account/")
        return [HistoryRow(policy, scope, since, sampled.replace(b"account-0", account.encode()))]

    again.restore(states, rows)
    return again


def _samples(now: int) -> list[StoredSamples]:
    """A sample of each symbol every minute of a window that ends at `now`."""
    count = WINDOW // EVERY + 2
    return [
        StoredSamples(
            "account-0",
            now - (count - 1 - number) * EVERY,
            [(symbol, price, None, False) for symbol, price in zip(SYMBOLS, prices, strict=True)],
        )
        for number, prices in enumerate(walk(count, seed=11).tolist())
    ]


# Snapshots


def lively(stream: Iterator[Snapshot]) -> Iterator[Snapshot]:
    """The snapshots with what the thirty signals read besides positions and equity."""
    for tick, snapshot in enumerate(stream):
        accounts = tuple(
            _lively(account, number, tick, snapshot.as_of) for number, account in enumerate(snapshot.accounts)
        )
        yield replace(snapshot, accounts=accounts, own_orders=())


def _lively(account: AccountSnapshot, number: int, tick: int, at: datetime) -> AccountSnapshot:
    health = Health(
        latency_ms=50.0 + (number * 7 + tick * 13) % 40, requests=3, errors=0, timeouts=0, clock_skew_ms=-5.0
    )
    rows = (_fill(number, tick, at, "buy"), _fill(number, tick, at, "sell")) if (number + tick) % 10 == 0 else ()
    rules = account.instruments and (*account.instruments, replace(account.instruments[0], symbol=TRADED))
    positions = tuple(map(_quoted, account.positions or ()))
    return replace(account, positions=positions, fills=rows, health=health, orders=_ORDERS, instruments=rules)


def _quoted(position: Position) -> Position:
    mark = position.mark_price or Decimal(1)
    return replace(position, bid=mark - _HALF, ask=mark + _HALF)


def _fill(number: int, tick: int, at: datetime, side: Any) -> Fill:
    return Fill(
        f"{number}-{tick}-{side}", at, TRADED, side, Decimal(1), Decimal(100), f"order-{number}-{tick}-{side}",
        "long", Decimal(0), "USDT", Decimal(0),
    )  # fmt: skip


_ORDERS = (
    Order("resting-1", SYMBOLS[0], "buy", Decimal(1), price=Decimal(80), created_at=BEGINS),
    Order("resting-2", SYMBOLS[1], "sell", Decimal(1), price=Decimal(120), created_at=BEGINS),
)
_HALF = Decimal("0.01")


# Memory


def _memory() -> Iterator[Measure]:
    """What an account's window of latencies and its stored samples take, next to the bytes of their numbers."""
    polls, symbols, samples = 3_600, HELD, WINDOW // EVERY + 1

    def latencies() -> object:
        collector = Latencies([{"window": HOUR}], 20 * MINUTE)
        account = next(snapshots(Holdings.of(1), walk(1), APART)).accounts[0]
        begins = to_micros(BEGINS)
        for second in range(polls):
            polled = replace(account, health=Health(latency_ms=50.0 + second % 40))
            collector.observe(ScopeView(begins + second * SECOND, True, (polled,), {}, None), None)
        return collector

    def prices() -> object:
        collector = PriceSamples([{"window": WINDOW, "every": EVERY}], 20 * MINUTE)
        collector.replay(_samples(to_micros(BEGINS)))
        return collector

    name = f"memory of an account's latencies, {polls:,} polls in an hour"
    yield Measure(name, _kilobytes(latencies), polls * 16 / 1e3, "a time and a latency of 8 bytes", None, "KB")
    name = f"memory of an account's samples, {symbols} symbols × {samples} minutes"
    yield Measure(name, _kilobytes(prices), symbols * samples * 16 / 1e3, "a time and a price of 8 bytes", None, "KB")
    stored = len(msgjson.encode(_samples(to_micros(BEGINS)))) / 1e3
    yield Measure("the same in the store", stored, symbols * samples * 16 / 1e3, "the same", None, "KB")


def _kilobytes(make: Callable[[], object]) -> float:
    """The memory that stays allocated for what `make` returns."""
    make()  # imports and caches are not of it
    gc.collect()
    tracemalloc.start()
    kept = make()
    gc.collect()
    found = tracemalloc.get_traced_memory()[0] / 1e3
    tracemalloc.stop()
    del kept
    return found
