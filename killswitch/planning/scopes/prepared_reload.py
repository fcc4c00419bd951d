"""A reload that was prepared next to the ticks: what is compiled, and the histories that need more than the live ones.

The swap between two ticks only assigns; reading rows and replaying them is done here, on another thread. So nothing
here changes what an interpreter holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from msgspec import Struct

from killswitch.graph.nodes import PolicySet
from killswitch.model.store import SAMPLES, HistoryRow, MachineState
from killswitch.planning.reload.continuation import PolicyLink, SetContinuation, alike, continuation, no_rest
from killswitch.planning.scopes.compiled_policy import (
    CompiledPolicy,
    Identity,
    ReaderOf,
    compile_policy,
    reader_of,
    scopes_of,
)
from killswitch.planning.scopes.evaluator import (
    RowsSince,
    ScopeEvaluator,
    StoredEvaluator,
    decoded_rows,
    decoded_samples,
    require_readable,
)
from killswitch.planning.scopes.migrated_states import NO_HISTORY, state_after
from killswitch.signals.history.rows import HistoryState, encode_row
from killswitch.signals.history.scope import History


class PreparedHistory(Struct, frozen=True):
    """A history with what a new text needs, as of the stored state `base`."""

    history: History
    base: HistoryState

    def caught_up(self, live: History, rows: RowsSince, place: tuple[str, str]) -> History | None:
        """The history continued to the live one; None if the past was corrected or reset since `base`."""
        now, base = live.state(), self.base
        if (now.begun_at, now.rebased, now.rebase_due, now.corrections) != (
            base.begun_at, base.rebased, base.rebase_due, base.corrections,
        ):  # fmt: skip
            return None
        last = -1 if base.last_at is None else base.last_at
        newer = [encode_row(row) for row in live.rows if row.at > last]
        samples = () if live.prices is None else rows(place[0], f"{place[1]}{SAMPLES}", last + 1)
        self.history.restore(now, newer, decoded_samples(samples))
        self.history.observed_last(live)
        return self.history


class PreparedReload(Struct, frozen=True):
    """A set that is ready to be taken: how it continues the one in force, compiled, with its histories.

    `histories`: by policy and scope of the set in force.
    """

    continuation: SetContinuation
    compiled: Mapping[str, CompiledPolicy]
    histories: Mapping[tuple[str, str], PreparedHistory]

    @property
    def policies(self) -> PolicySet:
        return self.continuation.after

    def next_of(self, evaluator: ScopeEvaluator, rows: RowsSince) -> NextEvaluator:
        """What a scope evaluator continues with under its next text; nothing is changed yet."""
        link = self.continuation.links[evaluator.policy]
        compiled, place = self.compiled[link.after.policy], (evaluator.policy, evaluator.scope)
        history = None
        if not fits(evaluator.compiled, compiled):
            prepared = self.histories.get(place)
            history = None if prepared is None else prepared.caught_up(evaluator.history, rows, place)
            if history is None:
                history = resumed(evaluator, compiled, rows)
        after = None if link.is_same else state_after(evaluator.stored(NO_HISTORY), link)
        return NextEvaluator(evaluator, compiled, after, history)


class NextEvaluator(Struct, frozen=True):
    """A scope evaluator, and what it continues with: `after` and `history` are None where it keeps its own."""

    evaluator: ScopeEvaluator
    compiled: CompiledPolicy
    after: StoredEvaluator | None
    history: History | None

    def take(self) -> None:
        self.evaluator.reload(self.compiled, self.after, self.history)


def is_drawn(link: PolicyLink, scope: str, present: Sequence[Identity], symbols: Collection[str]) -> bool:
    """Whether the next text draws the scope, as far as the accounts that are `present` show."""
    rule, before = link.after.scope, link.before.scope
    if alike(rule, before) or scope in scopes_of(rule, present, symbols):
        return True
    return scope.partition("/")[0] == rule.each and scope not in scopes_of(before, present, symbols)


def fits(before: CompiledPolicy, after: CompiledPolicy) -> bool:
    """Whether a live history of the policy has what its next text needs."""
    return (
        before.terms == after.terms
        and before.collectors == after.collectors
        and before.graph.hedges == after.graph.hedges
        and before.keep >= after.keep
        and set(before.windows) >= set(after.windows)
        and before.keep_samples >= after.keep_samples
    )


def resumed(evaluator: ScopeEvaluator, compiled: CompiledPolicy, rows: RowsSince) -> History:
    """The history of a scope with what `compiled` needs, from the stored rows."""
    place, now, live = (evaluator.policy, evaluator.scope), evaluator.now, evaluator.history
    made = _resumed(place, compiled, live.state(), rows, now)
    made.observed_last(live)
    return made


def _resumed(
    place: tuple[str, str], compiled: CompiledPolicy, state: HistoryState, rows: RowsSince, now: int
) -> History:
    policy, scope = place
    samples: Sequence[HistoryRow] = ()
    if compiled.keep_samples:
        samples = rows(policy, f"{scope}{SAMPLES}", now - compiled.keep_samples)
    made = History(compiled.windows, compiled.keep, compiled.terms, compiled.collectors, compiled.graph.hedges)
    made.restore(state, decoded_rows(rows(policy, scope, now - compiled.keep)), decoded_samples(samples))
    return made


def prepared(
    before: PolicySet,
    after: PolicySet,
    live: Iterable[ScopeEvaluator],
    stored: Iterable[MachineState],
    rows: RowsSince,
    reader: ReaderOf = reader_of,
    rest: Callable[[], None] = no_rest,
) -> PreparedReload:
    """Prepare to take `after` in place of `before`. `live`: the scopes of the set in force; they are only looked at.

    `stored`: their states in the store. `rows`: reads the store from another thread than that of the ticks. `rest` is
    called between two policies.
    """
    found = continuation(before, after, rest)
    compiled: dict[str, CompiledPolicy] = {}
    for graph in after.graphs:
        rest()
        compiled[graph.policy] = compile_policy(graph, reader)
    states = {(each.policy, each.scope): each for each in stored}
    histories = {}
    for evaluator in tuple(live):
        rest()
        place, link = (evaluator.policy, evaluator.scope), found.links.get(evaluator.policy)
        state = states.get(place)
        if link is None or state is None or fits(evaluator.compiled, compiled[link.after.policy]):
            continue
        base = require_readable(state, ())[0].history
        history = _resumed(place, compiled[link.after.policy], base, rows, base.last_at or 0)
        histories[place] = PreparedHistory(history, base)
    return PreparedReload(found, compiled, histories)
