"""A close from its decision to its end, on an exchange and over a wire of the test's choice, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from killswitch.execution.account_executor import AccountExecutor
from killswitch.execution.state.intents import planned_entries
from killswitch.model.decision import Cancel, CancelWhy, Decision, Intent
from killswitch.model.snapshot import Closing, Snapshot
from killswitch.model.store import JournalEntry, TickRecord
from tests.faults.exchange import ZERO, Exchange, Key, Market, Mode, Placed
from tests.faults.journal_checker import Bound, JournalChecker, MemoryJournal, orphans, overclosed
from tests.faults.mishaps import Mishaps, Rule, Script
from tests.faults.statement import statement
from tests.faults.wire import Wire
from tests.virtual_time import VirtualTime

PATIENCE = 900.0
"""Seconds in which every close of a test must have come to an end."""


def instead(wire: type[Wire], exchange: Exchange) -> type[Any]:
    """The wire that replaces `wire`: itself, unless something else carries the tests."""
    return wire


def decision_on(
    exchange: Exchange, name: str, as_of: datetime, targets: Mapping[Key, Decimal], *, reduce_only: bool = True
) -> Decision:
    """The decision on the account as it is: leave `targets` contracts of each position."""
    intents = tuple(
        Intent(
            account=exchange.account, symbol=key[0], position_side=key[1],
            side="sell" if key[1] == "long" else "buy", contracts=exchange.held[key] - target, target=target,
            reduce_only=reduce_only, rank=rank,
        )
        for rank, (key, target) in enumerate(targets.items(), start=1)
    )  # fmt: skip
    return Decision(
        id=name, as_of=as_of, policy="p", policy_set="sha256:0", scope=f"account/{exchange.account}", mode="enforce",
        stage="close", level=1, previous_level=0, intents=intents,
    )  # fmt: skip


def hedge_on(exchange: Exchange, name: str, as_of: datetime, key: Key, contracts: Decimal) -> Decision:
    """The decision that opens a hedge of so many contracts."""
    intent = Intent(
        account=exchange.account, symbol=key[0], position_side=key[1], side="buy" if key[1] == "long" else "sell",
        contracts=contracts, target=ZERO, reduce_only=False, rank=1, purpose="hedge",
    )  # fmt: skip
    plain = decision_on(exchange, name, as_of, {})
    return replace(plain, kind="hedge", intents=(intent,))


def committed(store: Any, decision: Decision, snapshot: Snapshot | None = None) -> Decision:
    """Commit the decision with its planned entries, in one tick."""
    store.commit_tick(
        TickRecord(
            as_of=decision.as_of, policy_set="sha256:0", states=(), rows=(), decisions=(decision,), notices=(),
            journal=planned_entries(decision, snapshot=snapshot), snapshot=None, consumed_events=(), prune_before=0,
        )
    )  # fmt: skip
    return decision


class Scene:
    """One account. Declare decisions with `decide` and events with `at`, then `play`."""

    def __init__(
        self,
        book: Mapping[Key, str | int],
        *rules: Rule,
        markets: Iterable[Market] = (),
        mode: Mode = "one_way",
        blocking: bool = False,
        wire: type[Wire] = Wire,
        exchange: type[Exchange] = Exchange,
        mishaps: Mishaps | None = None,
        account: str = "main",
        time: VirtualTime | None = None,
        closing: Mapping[str, Any] | None = None,
        **wired: Any,
    ) -> None:
        """`wired` goes to the wire; `closing` to the closer."""
        self.time = time or VirtualTime()
        self.exchange = exchange(
            {key: Decimal(amount) for key, amount in book.items()}, lambda: (self.time.elapsed, self.time.now()),
            account=account, mode=mode, markets=markets, resting_exits_block=blocking,
        )  # fmt: skip
        self.wire = instead(wire, self.exchange)(self.exchange, self.time, mishaps or Script(*rules), **wired)
        self.store = MemoryJournal()
        self.checker = JournalChecker(self.store, self.exchange)
        self.wire.watch = self.checker.watch
        self.checker.misled_since = self.wire.misled_since
        self._closing = dict(closing or {})
        self.closer = self.new_closer()
        self.bounds: dict[Key, Bound] = {}
        self.decisions: list[Decision] = []
        self.notices: set[str] = set()
        """What people were notified of: why no snapshot was believed, and which orders were stalled."""
        self._not_adopted: list[Decision] = []
        self._at: list[tuple[float, Callable[[], object]]] = []
        self.ended_at: float | None = None

    def new_closer(self) -> AccountExecutor:
        return AccountExecutor(self.exchange.account, self.wire, self.checker, self.time, **self._closing)

    # Before and during the play

    def decide(
        self,
        targets: Mapping[Key, str | int],
        *,
        cancels: Mapping[str, tuple[str, CancelWhy]] | None = None,
        change: Callable[[Decision], Decision] = lambda decision: decision,
    ) -> Decision:
        """Decide on the account as it is, and commit; adopted before the next pass. `cancels`: id → its why."""
        wanted = {key: Decimal(target) for key, target in targets.items()}
        plain = decision_on(
            self.exchange, f"d{len(self.decisions) + 1}", self.time.now(), wanted,
            reduce_only=self.exchange.mode != "spot",
        )  # fmt: skip
        account = self.exchange.account
        orders = tuple(Cancel(account, symbol, order, why) for order, (symbol, why) in (cancels or {}).items())
        decision = change(replace(plain, cancels=orders))
        seen = Snapshot(decision.as_of, (statement(self.exchange),), "killswitch.snapshot/v1")
        self._not_adopted.append(committed(self.store, decision, seen))
        self.decisions.append(decision)
        for key, target in wanted.items():
            new = Bound(self.exchange.held[key], target, self.time.elapsed, self.time.elapsed)
            self.bounds.setdefault(key, new).also(target, self.time.elapsed)
        return decision

    def at(self, second: float, happens: Callable[[], object]) -> None:
        """Schedule an event at that second of the play."""
        self._at.append((second, happens))

    def play(self, patience: float = PATIENCE, kills: Iterable[float] = ()) -> dict[str, str]:
        """Close until nothing is left to do; the process is killed and started again at `kills`.

        Returns how each decision ended; one that has not within `patience` seconds is not in it. Every promise that
        always holds is checked against the truth.
        """
        self.time.run(self.live_through(patience, sorted(kills)))
        self.assert_honest()
        return self.statuses

    async def live_through(self, patience: float, kills: list[float]) -> None:
        """Run the process, killed and started again at each of `kills`, until `patience` seconds are over."""
        loop = asyncio.get_running_loop()
        for second, happens in self._at:
            loop.call_at(second, happens)
        last = max((second for second, _ in self._at), default=0.0)
        end = self.time.elapsed + patience
        for kill in [*kills, None]:
            life = asyncio.ensure_future(self._live(end, last))
            await asyncio.wait({life}, timeout=None if kill is None else max(0.0, kill - self.time.elapsed))
            if kill is not None:
                life.cancel()
                await asyncio.gather(life, return_exceptions=True)
                getattr(self.wire, "restarted", lambda: None)()
                self.closer = self.new_closer()
            if not life.cancelled() and (error := life.exception()) is not None:
                raise error

    async def _live(self, end: float, last: float) -> None:
        await self.closer.recover()
        while self.time.elapsed < end:
            # Between two passes, as in the runner.
            while self._not_adopted:
                self.closer.adopt(self._not_adopted.pop(0))
            busy = await self.closer.advance() or self.closer.has_pending_fees
            self._collect_notices()
            if not busy and not self._not_adopted and self.time.elapsed >= last:
                self.ended_at = self.time.elapsed
                return
            pause = 0.05 if not busy else getattr(self.closer, "wait", 0.0)
            if pause > 0:
                await self.time.sleep(min(pause, 1.0))

    def _collect_notices(self) -> None:
        self.notices |= {notice for notice in (self.closer.distrust, *self.closer.stalls.values()) if notice}

    # Afterwards

    def assert_honest(self) -> None:
        """Nothing was closed beyond what was decided, turned, sent unjournaled, or reported flat that is not."""
        violations = [*self.checker.violations, *self.exchange.turned, *map(str, orphans(self.exchange, self.checker))]
        found = (overclosed(self.exchange, key, bound) for key, bound in self.bounds.items())
        assert [*violations, *(violation for violation in found if violation)] == []

    @property
    def statuses(self) -> dict[str, str]:
        """Decision → how it ended."""
        return {it.decision: it.data["status"] or "" for it in self.entries("finished")}

    def entries(self, *kinds: str) -> list[JournalEntry]:
        return [it for it in self.store.entries if it.kind in kinds]

    def orders(self, symbol: str | None = None) -> list[Placed]:
        """The orders of ours that the venue accepted, in order."""
        return [
            it for it in self.exchange.orders.values() if it.by == "ours" and symbol in (None, it.symbol)
        ]  # fmt: skip

    def held(self, *keys: Key) -> list[Decimal]:
        return [self.exchange.held.get(key, ZERO) for key in keys]

    def calls(self, call: str, since: float = 0.0) -> int:
        """How many requests of a kind were sent, from that second on."""
        return sum(it.call == call and it.left >= since for it in self.wire.travelled)

    def progress(self) -> tuple[Closing, ...]:
        return self.closer.progress()


def long(*symbols: str) -> list[Key]:
    """The keys of long positions."""
    return [(symbol, "long") for symbol in symbols]
