"""What a new set would fire on arrival, and the set in force would not, on the same snapshot and history (A8).

Two interpreters with the runner's stored state evaluate the last snapshot; then one of them continues with the new set,
as a reload does, and both evaluate it once more. The same is done with triggers that confirm at once: a condition that
is true now and was not watched before fires as soon as its `confirm` is over, and counts as well. Nothing is executed,
polled or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import Graph, PolicySet
from killswitch.model.decision import Decision
from killswitch.model.effects import Orders, kind_of
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import MachineState
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.reload_preview import ReloadPreview
from killswitch.planning.scopes.evaluator import RowsSince
from killswitch.source.candidate import ArrivalFiring

LATER = timedelta(seconds=1)
"""The time from the last snapshot to the one that is evaluated after the reload."""
MOST_ORDERS = 6


class StoredRun(Struct, frozen=True):
    """What the runner has stored. `restored`: an interpreter of a set with that state."""

    restored: Callable[[PolicySet], Interpreter]
    states: Sequence[MachineState]
    rows: RowsSince


class Arrival(Struct, frozen=True):
    """What fires on arrival, and what the reload does to what is in force."""

    firings: tuple[ArrivalFiring, ...] = ()
    preview: ReloadPreview = ReloadPreview()


def arrival(
    base: PolicySet, head: PolicySet, snapshot: Snapshot, state: StoredRun,
    text: Callable[[Decision], str] | None = None,
) -> Arrival:  # fmt: skip
    """The stages that only head would fire, by policy, scope and stage, and the preview of the reload.

    `text`: what a firing does, in words; None: with its orders.
    """
    described = closing_text if text is None else text
    still = replace(snapshot, events=(), scheduled=True)  # commands of operators are no part of a set
    found: dict[tuple[str, str, str], ArrivalFiring] = {}
    preview = ReloadPreview()
    for number, of in enumerate((_as_written, _confirming_at_once)):
        own = state.restored(base)
        own.tick(still)
        before = {(each.policy, each.scope, each.stage) for each in _firings(own, _later(still))}
        reloaded = state.restored(base)
        reloaded.tick(still)
        ready = reloaded.prepare(of(head), state.states, state.rows)
        if number == 0:
            preview = reloaded.preview_reload(ready.continuation)
        reloaded.reload(ready)
        for each in _firings(reloaded, _later(still)):
            key = (each.policy, each.scope, each.stage or "")
            if key not in before:
                found.setdefault(key, ArrivalFiring(*key, described(each)))
    return Arrival(tuple(found[key] for key in sorted(found)), preview)


def _later(snapshot: Snapshot) -> Snapshot:
    """The same book a moment later, polled again."""
    accounts = tuple(
        each if each.observed_at is None else replace(each, observed_at=each.observed_at + LATER)
        for each in snapshot.accounts
    )
    return replace(snapshot, as_of=snapshot.as_of + LATER, accounts=accounts)


def _as_written(policies: PolicySet) -> PolicySet:
    return policies


def _confirming_at_once(policies: PolicySet) -> PolicySet:
    """The set in which every trigger confirms at the first evaluation at which it is true."""
    return replace(policies, graphs=tuple(_at_once(graph) for graph in policies.graphs))


def _at_once(graph: Graph) -> Graph:
    return replace(graph, triggers=tuple(replace(each, confirm=0, confirm_ticks=0) for each in graph.triggers))


def _firings(interpreter: Interpreter, snapshot: Snapshot) -> Iterator[Decision]:
    """The decision of each stage that fires and acts."""
    decisions: Iterable[Decision] = interpreter.tick(snapshot).decisions
    yield from (each for each in decisions if each.kind is None and each.mode == "enforce" and each.stage is not None)


def closing_text(decision: Decision) -> str:
    """What a firing does, in words: its orders, then every other effect."""
    parts = []
    if decision.intents:
        shown = [f"{it.side} {it.contracts:f} {it.symbol} on {it.account}" for it in decision.intents[:MOST_ORDERS]]
        rest = len(decision.intents) - len(shown)
        shown += [f"{rest} more"] if rest else []
        parts.append(f"would close: {', '.join(shown)}")
    parts += [f"would {kind_of(effect).text(effect)}" for effect in decision.effects if not isinstance(effect, Orders)]
    return "; ".join(parts) or "would close nothing"
