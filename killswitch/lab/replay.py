"""Replay: the policies over a recording, as the runner would have decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import Snapshot
from killswitch.planning.tick import Interpreter


def replay(policies: PolicySet, snapshots: Iterable[Snapshot]) -> Iterator[Decision | Notice]:
    """Every decision and notice, in order; a warning where the recording lacks snapshots.

    The stage machine moves as if every decision had been carried out; positions are taken as recorded.
    """
    interpreter = Interpreter(policies)
    for snapshot in snapshots:
        if snapshot.missing:
            yield _missing(snapshot)
        outcome = interpreter.tick(snapshot)
        yield from outcome.notices
        yield from outcome.decisions


def _missing(snapshot: Snapshot) -> Notice:
    count = "1 snapshot is" if snapshot.missing == 1 else f"{snapshot.missing} snapshots are"
    text = (
        f"{count} missing here: the recording could not be written then, and what the run decided on them is not shown"
    )
    return Notice(snapshot.as_of, "recording", "recording", "warning", "warning", text)
