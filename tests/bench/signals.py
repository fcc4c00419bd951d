"""One tick of many accounts with thirty different signals in use, against one with four.

Accounts, positions and prices are those of `scale`; nothing fires. Thirty signals of the catalogue are compared with a
number that they never reach, each by a trigger of its own; a second policy uses them twice, with other thresholds, and
shares their columns. Times are medians of the processor time of this process.

    python -m tests.bench signals
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from statistics import median

from killswitch.graph.nodes import PolicySet
from killswitch.model.instant import MINUTE
from killswitch.planning.interpreter import Interpreter
from killswitch.signals.arguments import Argument, SymbolGroup, Value, call_text
from killswitch.signals.catalogue import CATALOGUE
from killswitch.signals.declaration import ScopeSignal
from tests.backtests import written
from tests.bench.accounts import HELD, SYMBOLS, Holdings, snapshots, walk
from tests.bench.measure import Measure
from tests.bench.replay import compiled
from tests.worlds.signals import some_value

TICKS = {10: 40, 100: 12, 1_000: 7, 10_000: 2}
"""Accounts → measured ticks."""
WARM_UP = 2
APART = timedelta(minutes=15)
IN_USE = 30
"""Different signals in use."""
FOUR = 2.0
"""The tick with thirty signals may take this many times that with four."""
LINEAR = 1.3
"""The time of an account may grow by this factor where there are ten times as many, that of a column not at all."""
MICROSECONDS = 3.0
"""The aim for the time of a trigger in microseconds, which a stream engine in Java publishes for a statement."""

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: thirty}}
spec:
  mode: enforce
  scope: {{each: account, match: {{market: swap}}}}
  max_gap: 20m
  triggers:
{triggers}
  stages:
    - {{name: note, level: 1, any: [{names}], cooldown: 6h, reset: manual, actions: []}}
---
apiVersion: killswitch.dev/v1
kind: CorrelationGroup
metadata: {{name: majors}}
spec: {{symbols: ["{first}", "{second}"], order: 1}}
"""


def measures() -> Iterator[Measure]:
    """Promised: twice the tick with four signals, linear in accounts and in the number of columns."""
    each: dict[int, float] = {}
    for accounts, ticks in TICKS.items():
        holdings = Holdings.of(accounts)
        four, fifteen, thirty, twice = (
            tick_ms(policies, holdings, ticks)
            for policies in (
                compiled(Path(__file__).with_name("scale.yaml")),
                using(15),
                using(IN_USE),
                using(IN_USE, 2),
            )
        )
        each[accounts] = thirty / accounts
        name = f"tick of {accounts:,} accounts × {HELD} positions, {IN_USE} signals"
        yield Measure(name, thirty, four, "4 signals", FOUR)
        yield Measure(f"{name}, each used twice", twice, thirty, "used once")
        yield Measure(f"{name}, of a column", thirty / IN_USE, fifteen / 15, "of a column among 15", LINEAR)
        if accounts == 1_000:
            of_trigger = thirty / accounts / IN_USE * 1e3
            yield Measure("a trigger evaluated", of_trigger, MICROSECONDS, "aimed at", None, "µs")
        if accounts // 10 in each:
            fewer = each[accounts // 10]
            name = f"time of an account among {accounts:,}, {IN_USE} signals"
            yield Measure(name, each[accounts] * 1e3, fewer * 1e3, f"among {accounts // 10:,}", LINEAR, "µs")


def using(signals: int, times: int = 1) -> PolicySet:
    """A policy with so many different signals of the catalogue, each in as many triggers."""
    chosen = in_use(signals)
    triggers = [
        f"    t{number}-{again}: {{when: '{text} > {1e15 + again:.1f}', on_unknown: hold, grace: 240h}}"
        for number, text in enumerate(chosen)
        for again in range(times)
    ]
    names = ", ".join(f"t{number}-{again}" for number in range(len(chosen)) for again in range(times))
    return written(POLICY.format(triggers="\n".join(triggers), names=names, first=SYMBOLS[0], second=SYMBOLS[1]))


def in_use(signals: int) -> Sequence[str]:
    """So many signals as expressions write them: the numbers of scopes, every second one of the catalogue first."""
    numbers = [spec for spec in CATALOGUE if isinstance(spec, ScopeSignal)]
    ordered = [*numbers[::2], *numbers[1::2]]
    texts = [call_text(spec.name, spec.arguments, tuple(map(value_of, spec.arguments))) for spec in ordered]
    if len(texts) < signals:
        raise LookupError(f"the catalogue has {len(texts)} numbers of scopes, not {signals}")
    return texts[:signals]


def value_of(argument: Argument) -> Value:
    """A value of the argument that the accounts of the bench can serve."""
    if argument.kind == "duration":
        return 15 * MINUTE
    if argument.key == "symbol":
        return SYMBOLS[0]
    return SymbolGroup("majors", SYMBOLS[:2]) if argument.document == "CorrelationGroup" else some_value(argument)


def tick_ms(policies: PolicySet, holdings: Holdings, ticks: int) -> float:
    """The median processor time of a tick in milliseconds, once the windows are complete."""
    interpreter, times = Interpreter(policies), []
    for snapshot in snapshots(holdings, walk(WARM_UP + ticks), APART):
        gc.collect()
        begun = time.process_time()
        outcome = interpreter.tick(snapshot)
        times.append(time.process_time() - begun)
        if outcome.decisions:
            raise AssertionError("something fires: the ticks are no longer equal")
    return median(times[WARM_UP:]) * 1e3
