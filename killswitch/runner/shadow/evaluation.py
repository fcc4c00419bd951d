"""The process that evaluates one shadow set: snapshots in, what would have fired out.

It opens no account and resolves no credential. Its limits, and its own store, keep what it does from the runner: it may
hang, fail or use up its memory, and only its own ticks are lost.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.accounts.opening import PolicyProblemsError, read_policies
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision
from killswitch.model.instant import SECOND, from_micros, to_micros
from killswitch.model.legible import legible, one_line
from killswitch.model.snapshot import Snapshot, decode_snapshot, encode_snapshot
from killswitch.model.store import SAMPLES, HistoryRow, MachineState, Store, TickRecord
from killswitch.planning.interpreter import NO_OUTCOME, Interpreter
from killswitch.planning.replayed_ticks import second_look
from killswitch.runner.shadow.record import REMEMBERED, SEEN, encode_seen, of_shadow, seen_in
from killswitch.store.errors import StoreError
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

COMMIT_EVERY = 10 * SECOND
"""How often states are stored while nothing fires (microseconds)."""
NICENESS = 10
LARGEST_FILE = 1 << 30


class ShadowSeed(Struct, frozen=True):
    """The states with which a shadow set begins: those of the deployed set after the tick at `at` (microseconds).

    `live`: its live blobs that planning restores.
    """

    at: int
    states: tuple[MachineState, ...] = ()
    live: dict[str, bytes] = {}


class ShadowStart(Struct, frozen=True, kw_only=True):
    """The first message to the process. `folder`: the policy files. `source_at`: the runner's store, for histories."""

    folder: str
    store_at: str
    source_at: str
    armed: tuple[str, ...]
    commit: str | None
    """The commit of the set, which its decisions carry."""
    seed: ShadowSeed
    longest_gap: float
    """Seconds between two ticks from which the ticks between them count as missed."""
    memory: int
    """The most memory that the process may use, in bytes."""


class Fired(Struct, frozen=True):
    """What would have fired, for the log; the store of the shadow set has the whole decision."""

    as_of: datetime
    policy: str
    scope: str
    stage: str
    orders: int


def fired(decision: Decision) -> Fired:
    """What is compared of the firing of a stage."""
    return Fired(decision.as_of, decision.policy, decision.scope, decision.stage or "", len(decision.intents))


class ShadowAnswer(Struct, frozen=True, omit_defaults=True):
    """A message of the process: the digest of its set once it is compiled, each evaluated snapshot, or a problem."""

    digest: str | None = None
    seen: datetime | None = None
    fired: tuple[Fired, ...] = ()
    seconds: float = 0.0
    """With `seen`: the time that the set has seen so far, without gaps."""
    problem: str | None = None


encode_start = msgspec.json.Encoder().encode
decode_answer = msgspec.json.Decoder(ShadowAnswer).decode
_DECODE_START = msgspec.json.Decoder(ShadowStart).decode
_ENCODE_ANSWER = msgspec.json.Encoder().encode


class ShadowEvaluation:
    """One shadow set over the snapshots of a run, in a store of its own."""

    def __init__(self, policies: PolicySet, store: Store, armed: Iterable[str], longest_gap: timedelta) -> None:
        self._policies = policies
        self._store = store
        self._longest = longest_gap
        self.interpreter = Interpreter(policies, frozenset(armed))
        self._seen = seen_in(store)
        self._has_ticked = False
        self._rows: list[HistoryRow] = []
        self._live: dict[str, bytes] = {}
        self._committed = 0
        past = [stored.decision for stored in store.decisions(REMEMBERED)]
        self.interpreter.restore(store.states(), store.rows, past, past, live=store.live)

    def tick(self, snapshot: Snapshot, following: Callable[[], Snapshot | None]) -> tuple[Decision, ...]:
        """Evaluate a snapshot; returns what would have fired.

        `following`: called where a stage would fetch prices a second time, for the next snapshot.
        """
        pending = self.interpreter.evaluate(snapshot)
        outcome = NO_OUTCOME
        if pending is not None:
            prices = second_look(pending, following()) if pending.reread else None
            outcome = self.interpreter.decide(pending, prices=prices)
        at = snapshot.as_of
        self._seen = self._seen.with_tick(at, snapshot.missing, self._longest, continues=self._has_ticked)
        self._has_ticked = True
        self._rows += self.interpreter.rows()
        self._live |= self.interpreter.live()
        if outcome.decisions or to_micros(at) - self._committed >= COMMIT_EVERY:
            self.commit(at, outcome.decisions, encode_snapshot(snapshot) if outcome.decisions else None)
        return of_shadow(outcome.decisions)

    def commit(self, at: datetime, decisions: tuple[Decision, ...] = (), snapshot: bytes | None = None) -> None:
        """Store states, histories and the ticks seen since the last commit, in one transaction."""
        now = to_micros(at)
        live, rows = self._live | {SEEN: encode_seen(self._seen)}, tuple(self._rows)
        self._store.commit_tick(
            TickRecord(
                as_of=at, policy_set=self._policies.digest, states=self.interpreter.states(), rows=rows,
                decisions=decisions, notices=(), journal=(), snapshot=snapshot, consumed_events=(),
                prune_before=self.interpreter.keep_since(now), live=live, trim=self.interpreter.trim(),
            )
        )  # fmt: skip
        self._rows, self._live, self._committed = [], {}, now

    @property
    def time(self) -> timedelta:
        """The time that it has seen, without gaps."""
        return self._seen.time

    @property
    def last(self) -> datetime | None:
        """The last tick seen."""
        return self._seen.spans[-1].last if self._seen.spans else None


def plant(store: Store, seed: ShadowSeed, source: Store, digest: str) -> None:
    """Let an empty store begin with the states of the deployed set, and with its histories up to then."""
    rows = [
        row
        for state in seed.states
        for scope in (state.scope, f"{state.scope}{SAMPLES}")
        for row in source.rows(state.policy, scope, 0)
        if row.at <= seed.at
    ]
    store.commit_tick(
        TickRecord(
            as_of=from_micros(seed.at), policy_set=digest, states=seed.states, rows=tuple(rows),
            decisions=tuple(reversed([it for it in _past(source) if to_micros(it.as_of) <= seed.at])), notices=(),
            journal=(), snapshot=None, consumed_events=(), prune_before=0, live=seed.live,
        )
    )  # fmt: skip


def _past(source: Store) -> list[Decision]:
    return [stored.decision for stored in source.decisions(REMEMBERED)]


def limit(memory: int) -> None:
    """Limit this process, so that it cannot harm the runner: memory, files, no core dumps, and a lower priority."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)


def main(source: BinaryIO, sink: BinaryIO) -> int:
    """Read a start and then snapshots, one a line, until the end of the input; write an answer a line."""

    def answer(message: ShadowAnswer) -> None:
        sink.write(_ENCODE_ANSWER(message) + b"\n")
        sink.flush()

    try:
        start = _DECODE_START(source.readline())
        limit(start.memory)
        _evaluate(start, (decode_snapshot(line) for line in source), answer)
    except PolicyProblemsError as error:
        first = next((f"{it.file}:{it.line}: {it.code} {it.message}" for it in error.diagnostics), "")
        answer(ShadowAnswer(problem=one_line(legible(f"it does not compile: {error}; {first}"))))
        return 1
    except (Exception, MemoryError) as error:  # noqa: BLE001 - whatever it is, the runner records it
        answer(ShadowAnswer(problem=one_line(legible(f"{type(error).__name__}: {error}"))))
        return 1
    return 0


def _evaluate(start: ShadowStart, snapshots: Iterator[Snapshot], answer: Callable[[ShadowAnswer], None]) -> None:
    policies = replace(read_policies([Path(start.folder)]).policies, commit=start.commit)
    answer(ShadowAnswer(digest=policies.digest))
    store = open_store(start.store_at)
    try:
        if not store.states() and not store.live(SEEN):
            _seed(store, start, policies.digest)
        longest = timedelta(seconds=start.longest_gap)
        evaluation = ShadowEvaluation(policies, store, start.armed, longest)
        _follow(evaluation, snapshots, answer)
        if evaluation.last is not None:
            evaluation.commit(evaluation.last)
    finally:
        store.close()


def _follow(
    evaluation: ShadowEvaluation, snapshots: Iterator[Snapshot], answer: Callable[[ShadowAnswer], None]
) -> None:
    after: Snapshot | None = None

    def look() -> Snapshot | None:
        nonlocal after
        after = next(snapshots, None)
        return after

    while (snapshot := after or next(snapshots, None)) is not None:
        after = None
        firings = tuple(map(fired, evaluation.tick(snapshot, look)))
        answer(ShadowAnswer(seen=snapshot.as_of, fired=firings, seconds=evaluation.time.total_seconds()))


def _seed(store: SqlStore, start: ShadowStart, digest: str) -> None:
    try:
        source = open_store(start.source_at, read_only=True)
    except StoreError:
        store.commit_tick(_states_only(start.seed, digest))
        return
    try:
        plant(store, start.seed, source, digest)
    finally:
        source.close()


def _states_only(seed: ShadowSeed, digest: str) -> TickRecord:
    """The start without histories, where the runner's store cannot be read: its windows are partly known."""
    return TickRecord(
        as_of=from_micros(seed.at), policy_set=digest, states=seed.states, rows=(), decisions=(), notices=(),
        journal=(), snapshot=None, consumed_events=(), prune_before=0, live=seed.live,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.stdin.buffer, sys.stdout.buffer))
