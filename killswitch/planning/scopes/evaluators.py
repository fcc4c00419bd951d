"""The evaluators of all scopes: which scopes there are, where their accounts are in a snapshot, and stored state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from killswitch.engine.state import level_in_force, to_stored
from killswitch.graph.nodes import Graph
from killswitch.model.alert import Alert, Alerts
from killswitch.model.instant import DAY
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import SAMPLES, HistoryRow, HistoryTrim, MachineState
from killswitch.planning.reload.continuation import PolicyLink
from killswitch.planning.scopes.compiled_policy import (
    CompiledPolicy,
    Identity,
    ReaderOf,
    compile_policy,
    identity,
    indexes_of,
    members_of,
    reader_of,
    scopes_of,
    symbols_in,
)
from killswitch.planning.scopes.evaluator import Quiescence, RowsSince, ScopeEvaluator, quiescence_of
from killswitch.planning.scopes.migrated_states import ScopeState, blob_after, numbered_blob, orphan_alert, stored_scope
from killswitch.planning.scopes.prepared_reload import PreparedReload, is_drawn

SYMBOL: Final = "symbol/"
"""How the scopes of symbols begin."""
SYMBOL_KEPT: Final = 7 * DAY
"""How long a symbol that nobody trades any more is watched: a venue of options lists thousands a year."""


class ScopeEvaluators:
    """One evaluator for each policy and scope, created when a snapshot first has the scope."""

    def __init__(self, graphs: Sequence[Graph], reader: ReaderOf = reader_of) -> None:
        self._compiled = [compile_policy(graph, reader) for graph in graphs]
        self._evaluators: dict[tuple[str, str], ScopeEvaluator] = {}
        self._places: dict[tuple[str, str], tuple[int, ...] | None] = {}
        self._present: list[Identity] = []
        self._watching = _watching(graphs)
        """The policies that watch each symbol that is traded."""
        self._symbols: dict[str, int] = {}
        """The symbols that they watch → when each was last held or had an order (microseconds), at least this run."""
        self.unseen: dict[tuple[str, str], bytes] = {}
        """(policy, scope) → the stored state of a scope that no snapshot had yet."""
        self._orphans: tuple[Alert, ...] = ()
        self._orphans_of = 0
        """Of how many scopes without an evaluator `_orphans` are."""
        self._rows_since: RowsSince = lambda _policy, _scope, _since: ()
        self._outage: tuple[int, int] | None = None
        self._trimmed = 0

    def __iter__(self) -> Iterator[ScopeEvaluator]:
        return iter(self._evaluators.values())

    def restore(self, states: Iterable[MachineState], rows: RowsSince, outage: tuple[int, int] | None) -> None:
        """Use stored state, rows and the time without measurements for the scopes that are created from now on."""
        self.unseen = {(state.policy, state.scope): state.blob for state in states}
        self._rows_since = rows
        self._outage = outage
        # A symbol that is flat now may be latched, and its trades of the last hours count.
        stored = (scope for policy, scope in self.unseen if policy in self._watching)
        self._symbols = {scope.partition("/")[2]: 0 for scope in sorted(stored) if scope.startswith(SYMBOL)}

    def in_snapshot(self, snapshot: Snapshot, now: int) -> list[tuple[ScopeEvaluator, tuple[int, ...] | None]]:
        """Every scope evaluator with the indexes of its accounts; creates the evaluators of new scopes."""
        present = [identity(account) for account in snapshot.accounts]
        is_changed = self._watch_symbols(snapshot, now) if self._watching else False
        if present != self._present or is_changed:
            self._present = present
            for compiled in self._compiled:
                for scope in scopes_of(compiled.graph.scope, present, self._symbols):
                    key = (compiled.graph.policy, scope)
                    if key not in self._evaluators:
                        self._evaluators[key] = self._create(compiled, scope, now)
            self._places = {key: self._places_in(evaluator) for key, evaluator in self._evaluators.items()}
            self._join_caps()
        return [(evaluator, self._places[key]) for key, evaluator in self._evaluators.items()]

    def reload(self, prepared: PreparedReload) -> tuple[MachineState, ...]:
        """Continue with the next set, between two ticks; returns the states to store of scopes without an evaluator.

        A scope that lost its policy, or its accounts, keeps its state as an orphan until an operator resets it (R7).
        """
        links, before = prepared.continuation.links, self._evaluators
        left = {key: each for key, each in before.items() if not self._is_drawn(each, links.get(key[0]))}
        following = [prepared.next_of(each, self._rows_since) for key, each in before.items() if key not in left]
        unseen = [MachineState(*key, blob) for key, blob in self.unseen.items()]
        returning = {graph.policy: graph.stages for graph in prepared.continuation.added}
        stay = [each for each in unseen if each.policy not in links and each.policy not in returning]
        found = [numbered_blob(each, returning[each.policy]) for each in unseen if each.policy in returning]
        moved = [blob_after(each, links[each.policy]) for each in unseen if each.policy in links]
        lost = [
            MachineState(*key, each.serialised())
            if key[0] not in links
            else blob_after(MachineState(*key, each.serialised()), links[key[0]])
            for key, each in left.items()
        ]
        for each in following:
            each.take()
        kept = [each for key, each in before.items() if key not in left]
        self._evaluators = {(each.policy, each.scope): each for each in kept}
        self.unseen = {(each.policy, each.scope): each.blob for each in (*stay, *found, *moved, *lost)}
        self._compiled = list(prepared.compiled.values())
        self._watching = _watching(prepared.policies.graphs)
        for evaluator in kept:
            members = members_of(evaluator.compiled.graph.scope, evaluator.scope, self._present)
            evaluator.history.draw_out(frozenset(name for name, *_ in self._present) - frozenset(members))
        self._orphans_of = -1
        self._present = []  # the next snapshot finds the scopes, and the places of their accounts
        return (*found, *moved, *lost)

    def _is_drawn(self, evaluator: ScopeEvaluator, link: PolicyLink | None) -> bool:
        """Whether the next set draws the scope, as far as the accounts of the last snapshot show."""
        return link is not None and is_drawn(link, evaluator.scope, self._present, self._symbols)

    def scope_states(self, *, only_active: bool = False) -> tuple[ScopeState, ...]:
        """The state of every scope, with or without an evaluator, for the preview of a reload.

        `only_active`: of the scopes with an evaluator only those with something in force, or a close that waits.
        """
        live = (
            ScopeState(it.policy, it.scope, to_stored(it.state, it.compiled.trigger_names), it.decision,
                       it.history.begun_at)
            for it in tuple(self)
            if not only_active or level_in_force(it.state) or it.state.waiting
        )  # fmt: skip
        unseen = [MachineState(*key, blob) for key, blob in tuple(self.unseen.items())]
        return (*live, *map(stored_scope, unseen))

    @property
    def orphan_alerts(self) -> Alerts:
        """A page for each stage in force without a policy, a scope or a stage of its name, until it is reset (R7)."""
        if self._orphans_of != len(self.unseen):
            unseen = (stored_scope(MachineState(*key, blob)) for key, blob in self.unseen.items())
            self._orphans = tuple(orphan_alert(each) for each in unseen if level_in_force(each.engine))
            self._orphans_of = len(self.unseen)
        inside = (
            orphan_alert(ScopeState(it.policy, it.scope, to_stored(it.state, ())))
            for it in self
            if level_in_force(it.state) and it.machine.in_force(it.state) is None
        )
        return Alerts((*self._orphans, *inside)) if self._orphans else Alerts(tuple(inside))

    @property
    def present(self) -> tuple[Sequence[Identity], Collection[str]]:
        """The accounts of the last snapshot, and the symbols that are watched."""
        return self._present, self._symbols

    def _watch_symbols(self, snapshot: Snapshot, now: int) -> bool:
        """Watch what is traded now, and drop what was not traded for long and is not latched; whether any is new."""
        before = len(self._symbols)
        self._symbols |= dict.fromkeys(symbols_in(snapshot), now)
        is_changed = len(self._symbols) != before
        for symbol, at in tuple(self._symbols.items()):
            if not at:
                self._symbols[symbol] = now  # restored: the time before this run is not known
            elif now - at > SYMBOL_KEPT:
                mine = [self._evaluators[policy, SYMBOL + symbol] for policy in self._watching
                        if (policy, SYMBOL + symbol) in self._evaluators]  # fmt: skip
                if not any(level_in_force(each.state) or each.state.waiting for each in mine):
                    del self._symbols[symbol]
                    for each in mine:  # where the symbol is traded again, it continues from there
                        key = (each.policy, each.scope)
                        self.unseen[key] = each.serialised()
                        del self._evaluators[key], self._places[key]
        return is_changed

    def _join_caps(self) -> None:
        """Let the policies that name a cap group count together on each scope."""
        found: dict[str, dict[str, list[ScopeEvaluator]]] = {}
        for evaluator in self:
            for group in evaluator.compiled.cap_groups:
                found.setdefault(evaluator.scope, {}).setdefault(group, []).append(evaluator)
        for evaluator in self:
            evaluator.capped_with = found.get(evaluator.scope, {})
        moving = tuple(each for each in self if each.compiled.moves_margin or each.moved)
        for evaluator in moving:
            evaluator.moving_with = moving

    def places(self, evaluator: ScopeEvaluator) -> tuple[int, ...] | None:
        """The indexes of the scope's accounts in the last snapshot; None while one of them is missing."""
        return self._places[evaluator.policy, evaluator.scope]

    def accept_members(self, evaluator: ScopeEvaluator) -> None:
        """Accept the accounts of the last snapshot as the scope, without those that are gone."""
        evaluator.history.retain_members(frozenset(account[0] for account in self._present))
        self._places[evaluator.policy, evaluator.scope] = self._places_in(evaluator)

    def rows(self, now: int) -> tuple[HistoryRow, ...]:
        """History rows appended by the last tick, at `now`, and the prices that it sampled."""
        found = [(it.policy, it.scope, it.newest_row(now)) for it in self]
        found += [(it.policy, f"{it.scope}{SAMPLES}", it.newest_samples(now)) for it in self]
        return tuple(HistoryRow(policy, scope, now, blob) for policy, scope, blob in found if blob is not None)

    def keep_since(self, now: int) -> int:
        """Start of the history that is still needed (microseconds)."""
        return now - max(self._longest, *(compiled.keep_samples for compiled in self._compiled), 0)

    def trim(self, now: int) -> HistoryTrim | None:
        """The rows before the longest window, which are only needed if they are samples; None if there are none."""
        since, before = max(self._trimmed, self.keep_since(now)), now - self._longest
        self._trimmed = before
        return HistoryTrim(since, before) if since < before else None

    @property
    def _longest(self) -> int:
        return max((compiled.keep for compiled in self._compiled), default=0)

    def quiescences(self, now: int) -> tuple[Quiescence, ...] | None:
        """The quiescence of every scope evaluator since the last tick, at `now`; None if one of them is active."""
        found = [quiescence_of(evaluator, self._places[key], now) for key, evaluator in self._evaluators.items()]
        return None if None in found else tuple(each for each in found if each is not None)

    def _places_in(self, evaluator: ScopeEvaluator) -> tuple[int, ...] | None:
        rule, members = evaluator.compiled.graph.scope, sorted(evaluator.history.members)
        return indexes_of(rule, evaluator.scope, members, self._present)

    def _create(self, compiled: CompiledPolicy, scope: str, now: int) -> ScopeEvaluator:
        evaluator = ScopeEvaluator(compiled, scope)
        stored = self.unseen.pop((evaluator.policy, scope), None)
        if stored is not None:
            rows = self._rows_since(evaluator.policy, scope, now - compiled.keep)
            samples: Sequence[HistoryRow] = ()
            if compiled.keep_samples:
                samples = self._rows_since(evaluator.policy, f"{scope}{SAMPLES}", now - compiled.keep_samples)
            evaluator.restore(stored, [row.blob for row in rows], self._outage, [each.blob for each in samples])
        return evaluator


def _watching(graphs: Iterable[Graph]) -> set[str]:
    """The policies that watch each symbol that is traded."""
    return {graph.policy for graph in graphs if graph.scope.each == "symbol" and graph.scope.symbols is None}
