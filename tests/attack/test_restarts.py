"""A kill before every tick, and rows that come twice: an interpreter decides as one that runs through.

One account that two strategies trade, with flags, locks that are obeyed or not, outages, repeated passes and resets.
What is stored is what a tick commits: states, rows, blobs and decisions.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from killswitch.execution.client_order_id import client_order_id
from killswitch.model.decision import Decision, Intent
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Balance, Closing, Event, Fill, Position, Snapshot, WrittenLock
from killswitch.model.store import HistoryRow, MachineState
from killswitch.planning.interpreter import Interpreter, Outcome
from tests.backtests import written
from tests.worlds import START, account, fill, position, rules, snapshot

EVERY = 30
"""Seconds between two scheduled ticks."""
BEFORE = timedelta(seconds=1)
"""How long before a tick trades are."""
SYMBOLS = ("BTC_USDT", "ETH_USDT")
HEAD = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  mode: enforce
  scope: {scope}
  max_gap: 5m
"""
STAGE = """  triggers: {{it: {{{trigger}, on_unknown: {on_unknown}, grace: 1m}}}}
  stages:
    - name: act
      level: 1
      any: [it]
      cooldown: 2m
      reset: {reset}
      actions: [{actions}]
{more}---
"""
LOCK, HALVE = "lock_trading: {mode: reduce_only}", "close: {side: both, fraction: 50%}"
AUTOMATIC = "{{auto: {{when: '{when}', for: 1m, at_most: 2}}}}"


def policy(name: str, trigger: str, *actions: str, scope: str = "account", reset: str = "manual", more: str = "",
           on_unknown: str = "hold") -> str:  # fmt: skip
    where = f"{{each: {scope}, match: {{currency: USDT}}}}"
    listed = ", ".join(f"{{{each}}}" for each in actions)
    return HEAD.format(name=name, scope=where) + STAGE.format(
        trigger=trigger, reset=reset, actions=listed, more=more, on_unknown=on_unknown
    )


DOCUMENTS = (
    policy(
        "fall",
        "signal: equity.drawdown, window: 10m, at_least: 3%",
        LOCK,
        HALVE,
        more="      on_breach: close\n      breach: {ceiling: 50%, cost_per_hour: 1%, pause: 1m}\n",
    ),
    policy(
        "gross",
        "signal: exposure.leverage, at_least: 1.5",
        HALVE,
        reset=AUTOMATIC.format(when="exposure.leverage < 1.2"),
        on_unknown="warn",
    ),
    policy(
        "grid",
        "signal: exposure.gross, above: 700 USDT",
        LOCK,
        "close: {side: both, fraction: 100%}",
        scope="strategy, strategy: grid",
        reset=AUTOMATIC.format(when="exposure.gross < 500.0"),
        more="      on_breach: close\n      breach: {ceiling: 50%, cost_per_hour: 1%, pause: 1m}\n",
    ),
    policy(
        "halt",
        "signal: flag.set, name: halt, is: true",
        "cancel_orders: {kind: entry}",
        reset=AUTOMATIC.format(when='!flag.set("halt")'),
    ),
    policy(
        "cooldown",
        "signal: trades.count, window: 2m, outcome: any, per: scope, side: any, at_least: 1",
        "lock_trading: {mode: reduce_only, for: 3m}",
        scope="symbol",
        reset=AUTOMATIC.format(when='trades.count("3m", "any", "scope", "any") < 1.0'),
    ),
    policy(
        "capped",
        "signal: equity.loss_from_start, at_least: 1%",
        "close: {side: both, fraction: 50%, top: 1, rank: default, daily_cap: 2}",
    ),
    policy(
        "unusual",
        "signal: equity.drawdown, window: 1m, "
        "at_least: {quantile: 50%, history: 10m, floor: 1%, cap: 10%, initial: 5%}",
        LOCK,
    ),
    policy("forced", "signal: fills.closed_by_venue, window: 10m, causes: forced, at_least: 1", LOCK),
    policy("busy", "signal: exposure.turnover, window: 5m, at_least: 0.5", LOCK, scope="portfolio"),
)
STRATEGIES = """
apiVersion: killswitch.dev/v1
kind: Strategy
metadata: {name: grid}
spec: {match: {}, order_ids: grid-}
---
apiVersion: killswitch.dev/v1
kind: Strategy
metadata: {name: trend}
spec: {match: {}, order_ids: trend-}
"""


GRAPHS = written("".join(DOCUMENTS) + STRATEGIES)


class Trade(Struct, frozen=True):
    """What somebody trades before a tick. `owner`: the begin of the client order id."""

    symbol: str
    contracts: int
    owner: str


class Moment(Struct, frozen=True):
    """What happens before and in one tick. `moves`: by how many thousandths each price moves."""

    moves: tuple[int, int]
    trades: tuple[Trade, ...]
    is_down: bool = False
    repeats: int = 0
    """Passes that are woken by other accounts, and repeat this one."""
    command: tuple[str, str] | None = None
    """Kind and scope."""


MOMENTS = st.builds(
    Moment,
    moves=st.tuples(*[st.sampled_from([0, 0, 2, -3, 15, -20, -40])] * 2),
    trades=st.lists(
        st.builds(
            Trade, symbol=st.sampled_from(SYMBOLS), contracts=st.sampled_from([-4, -2, 2, 3, 5]),
            owner=st.sampled_from(["grid-", "trend-", "web-", "adl"]),
        ),
        max_size=2,
    ).map(tuple),
    is_down=st.sampled_from([False] * 7 + [True]),
    repeats=st.sampled_from([0, 0, 0, 1, 2]),
    command=st.sampled_from(
        [None] * 8
        + [("set", "portfolio"), ("clear", "portfolio"), ("reset", "account/main"), ("reset", "strategy/grid"),
           ("reset", "symbol/BTC_USDT"), ("reset", "portfolio")]
    ),
)  # fmt: skip


class Venue:
    """The account: net positions, prices, and the fills since the last snapshot. Orders of ours fill before a tick."""

    def __init__(self) -> None:
        self.wallet = Decimal(1000)
        self.prices = dict.fromkeys(SYMBOLS, Decimal(100))
        self.held = dict.fromkeys(SYMBOLS, Decimal(0))
        self.entries = dict.fromkeys(SYMBOLS, Decimal(100))
        self.fills: list[Fill] = []
        self._ids = count()

    def move(self, thousandths: tuple[int, int]) -> None:
        for symbol, move in zip(SYMBOLS, thousandths, strict=True):
            self.prices[symbol] = round(self.prices[symbol] * (1000 + move) / 1000, 4)

    def trade(self, at: datetime, symbol: str, change: Decimal, client: str | None, cause: str = "trade") -> None:
        """Trade at the mark, without a fee."""
        before, price = self.held[symbol], self.prices[symbol]
        closed = min(abs(before), abs(change)) if before * change < 0 else Decimal(0)
        made = closed * (price - self.entries[symbol]) * (1 if before > 0 else -1)
        after = self.held[symbol] = before + change
        if before * change >= 0 and after:
            self.entries[symbol] = (abs(before) * self.entries[symbol] + abs(change) * price) / abs(after)
        elif before * after < 0:
            self.entries[symbol] = price
        self.wallet += made
        self.fills.append(
            fill(
                f"f{next(self._ids)}", at, symbol, "buy" if change > 0 else "sell", str(abs(change)), str(price),
                fee="0", realized_pnl=str(made), client_order_id=client, cause=cause,
            )
        )  # fmt: skip

    def answer(self, at: datetime) -> AccountSnapshot:
        held: list[Position] = []
        for symbol, size in self.held.items():
            profit = size * (self.prices[symbol] - self.entries[symbol])
            if size:
                held.append(
                    position(
                        symbol, "long" if size > 0 else "short", str(profit), contracts=str(abs(size)),
                        entry_price=str(self.entries[symbol]), mark_price=str(self.prices[symbol]),
                        notional=str(abs(size) * self.prices[symbol]), mark_at=at,
                    )
                )  # fmt: skip
        profits = sum((each.unrealized_pnl or Decimal(0) for each in held), Decimal(0))
        fills, self.fills = self.fills, []
        balance = Balance("USDT", self.wallet, wallet=self.wallet, equity=self.wallet + profits)
        return account(
            str(self.wallet + profits), held, fills=fills, position_mode="one_way", free="500", unrealized=profits,
            observed_at=at, fills_as_of=at, flows_as_of=at, balances=(balance,),
            instruments=[rules(symbol) for symbol in SYMBOLS],
        )  # fmt: skip


class Story:
    """The snapshots that a course of moments gives a run; it acts on the decisions of the run."""

    def __init__(self) -> None:
        self.venue = Venue()
        self.at = START
        self.decided: list[Decision] = []
        """Oldest first."""
        self._closings: dict[str, int] = {}
        """Decision → passes since it was made."""
        self._ids = count()

    def snapshots(self, moment: Moment) -> Iterator[Snapshot]:
        """The scheduled tick, and the passes after it that repeat the account."""
        self.at += timedelta(seconds=EVERY)
        self.venue.move(moment.moves)
        for each in moment.trades:
            is_forced = each.owner == "adl"
            name = None if is_forced else f"{each.owner}{next(self._ids)}"
            self.venue.trade(
                self.at - BEFORE, each.symbol, Decimal(each.contracts), name, "adl" if is_forced else "trade"
            )
        self._fill_ours()
        seen = account(None, None, quality="down", reason="no answer") if moment.is_down else self.venue.answer(self.at)
        yield self._snapshot(seen, moment.command)
        for number in range(moment.repeats):
            self.at += timedelta(seconds=number + 1)
            yield self._snapshot(seen, None, scheduled=False)

    def _snapshot(self, seen: AccountSnapshot, command: tuple[str, str] | None, *, scheduled: bool = True) -> Snapshot:
        events = [] if command is None else [self._event(*command)]
        closings = []
        for decision, passes in self._closings.items():
            self._closings[decision] = passes + 1
            closings.append(Closing(decision, "closing" if passes < 1 else "flat", cost=Decimal(1)))
        taken = snapshot(self.at, seen, events=events, closings=closings, scheduled=scheduled)
        return replace(taken, locks=self._locks(), own_orders=())

    def _event(self, kind: str, scope: str) -> Event:
        name = f"e{next(self._ids)}"
        if kind == "reset":
            return Event(name, self.at, "reset", scope, "desk", "test")
        until = self.at + timedelta(minutes=2) if kind == "set" else None
        return Event(name, self.at, "flag", scope, "desk", "test", flag="halt", is_set=kind == "set", until=until)

    def _locks(self) -> tuple[WrittenLock, ...]:
        found: dict[tuple[str, str], WrittenLock] = {}
        for each in self.decided:
            key = (each.policy, each.scope)
            if each.kind == "reset":
                found.pop(key, None)
            elif each.lock is not None and (each.lock.until is None or each.lock.until > self.at):
                found[key] = WrittenLock(each.id, each.policy, each.scope, each.as_of, ("main",), each.stage)
        return tuple(found.values())

    def act(self, outcome: Outcome) -> None:
        """Send the orders of the pass: they fill before the next tick."""
        self.decided += outcome.decisions
        self._closings = {id_: passes for id_, passes in self._closings.items() if passes < 2}
        self._closings |= {each.id: 0 for each in outcome.decisions if each.intents}

    @property
    def unfinished(self) -> list[Decision]:
        return [each for each in self.decided if self._closings.get(each.id, 9) < 2]

    def _fill_ours(self) -> None:
        for decision in self.unfinished:
            if self._closings[decision.id] == 0:
                for number, intent in enumerate(decision.intents):
                    self._fill(decision, intent, number)

    def _fill(self, decision: Decision, intent: Intent, number: int) -> None:
        held = self.venue.held[intent.symbol]
        size = min(intent.contracts, abs(held))
        if size and (held > 0) == (intent.side == "sell"):  # reduce-only
            change = -size if intent.side == "sell" else size
            self.venue.trade(self.at - BEFORE, intent.symbol, change, client_order_id(decision.id, number, 0))


class Stored:
    """What the ticks of a run have committed."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, str], bytes] = {}
        self.rows: list[HistoryRow] = []
        self.live: dict[str, bytes] = {}

    def commit(self, interpreter: Interpreter) -> None:
        self.states |= {(each.policy, each.scope): each.blob for each in interpreter.states()}
        self.rows += interpreter.rows()
        self.live |= interpreter.live()

    def rows_of(self, policy: str, scope: str, since: int) -> list[HistoryRow]:
        return [each for each in self.rows if (each.policy, each.scope) == (policy, scope) and each.at >= since]

    def restored(self, story: Story) -> Interpreter:
        """The interpreter of the next run, before its first tick."""
        interpreter = Interpreter(GRAPHS)
        states = [MachineState(*key, blob) for key, blob in self.states.items()]
        interpreter.restore(states, self.rows_of, story.unfinished, [*reversed(story.decided)], None, self.live.get)
        return interpreter


def shown(outcome: Outcome) -> tuple[list[object], ...]:
    """What a run does and reports because of a pass, sorted: scopes come in the order in which they were seen."""
    decisions = sorted(
        (
            each.policy,
            each.scope,
            str(each.kind),
            each.stage,
            each.reason,
            str(each.lock),
            str(each.intents),
            str(each.cancels),
        )
        for each in outcome.decisions
    )
    notices = sorted((each.kind, each.text) for each in outcome.notices)
    alerts = sorted((each.key, each.severity) for each in outcome.alerts.found)  # its text may name the last book seen
    return decisions, notices, alerts


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.reuse, Phase.generate],  # shrinking takes minutes, and a course is readable as it is
)  # fmt: skip
@given(st.lists(MOMENTS, min_size=3, max_size=25))
def test_a_run_that_is_killed_before_every_tick_decides_as_one_that_runs_through(moments: list[Moment]) -> None:
    """Each pass makes the same decisions, notices and alerts: no latch, flag, answer or owner is lost."""
    story, through, stored = Story(), Interpreter(GRAPHS), Stored()
    for moment in [Moment((0, 0), ()), *moments]:
        for taken in story.snapshots(moment):
            killed = stored.restored(story)
            expected, found = through.tick(taken), killed.tick(taken)
            for one, other in zip(shown(found), shown(expected), strict=True):
                assert one == other, to_micros(taken.as_of)
            stored.commit(killed)
            story.act(expected)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], phases=[Phase.reuse, Phase.generate])
@given(st.lists(MOMENTS, min_size=3, max_size=25))
def test_a_fill_that_is_reported_again_and_again_counts_once(moments: list[Moment]) -> None:
    """As by an adapter that looks back over the last six. Scopes of symbols are left out: one that is held for the
    first time has not seen what was traded of it before."""
    graphs = replace(GRAPHS, graphs=tuple(each for each in GRAPHS.graphs if each.scope.each != "symbol"))
    story, once, again, past = Story(), Interpreter(graphs), Interpreter(graphs), list[Fill]()
    for moment in [Moment((0, 0), ()), *moments]:
        for taken in story.snapshots(moment):
            (seen,) = taken.accounts
            new, repeated = seen.fills or (), taken
            if seen.quality == "ok" and taken.scheduled:
                repeated = replace(taken, accounts=(replace(seen, fills=(*past, *new)),))
                past = [*past, *new][-6:]
            expected, found = once.tick(taken), again.tick(repeated)
            for one, other in zip(shown(found), shown(expected), strict=True):
                assert one == other, to_micros(taken.as_of)
            story.act(expected)
