"""Replay: the policies over a recording, as the runner would have decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import Snapshot
from killswitch.planning.tick import Interpreter


def replay(policies: PolicySet, snapshots: Iterable[Snapshot]) -> Iterator[Decision | Notice]:
    """Every decision and notice, in order.

    The stage machine moves as if every decision had been carried out; positions are taken as recorded.
    """
    interpreter = Interpreter(policies)
    for snapshot in snapshots:
        outcome = interpreter.tick(snapshot)
        yield from outcome.notices
        yield from outcome.decisions
