"""A preview on the book as the last tick has read it, in a process of its own: `python -m …operations.stored_preview`.

A server has no credentials of venues, so that it plans on the accounts that the runner wrote after its last tick, with
the stages and the history of the store. The answer says of when they are. Compiling and planning take most of a second
of computing, which must not delay the gate: hence the process.
"""

from __future__ import annotations

import sys
from typing import IO, Final

import msgspec
from msgspec import Struct

from killswitch.accounts.opening import PolicyProblemsError
from killswitch.limits.view import GateView, decode_gate_view
from killswitch.model.decision import decision_record
from killswitch.model.snapshot import Event, Snapshot
from killswitch.operations.commands import is_covered
from killswitch.operations.lifting import after_resets
from killswitch.operations.plan_comparison import NoDeployedSetError, deployed_set
from killswitch.operations.preview import Preview, closes_under_way, encode_preview, from_store, preview
from killswitch.operations.scoped_board import EVERYTHING, accounts_seen
from killswitch.planning.operator.closes import OPERATOR
from killswitch.runner.clock import SystemClock
from killswitch.runner.locks.gate_view import gate_view_file
from killswitch.runner.status_blob import tick_time
from killswitch.source.limited_process import LimitedProcessError, ProcessLimits, python_module, run_limited
from killswitch.store.received import received_at
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

MODULE: Final = "killswitch.operations.stored_preview"
WITHIN: Final = 20.0
"""Seconds that a preview may take."""
_ENCODER: Final = msgspec.json.Encoder(decimal_format="string")


class PreviewRequest(Struct, frozen=True):
    """A store, and the command that is tried on its book; None: what the policies would do by themselves.

    `scopes`: those that the caller sees; of a command, nothing of any other is answered.
    """

    store: str
    event: Event | None = None
    scopes: tuple[str, ...] = EVERYTHING


class PreviewAnswer(Struct, frozen=True):
    """The JSON of a preview, or why there is none."""

    content: msgspec.Raw = msgspec.Raw(b"null")
    problem: str | None = None


class NoPreviewError(Exception):
    """There is no preview; the message has the cause."""


def previewed(request: PreviewRequest) -> bytes:
    """The preview as JSON, made in a process with limits. NoPreviewError if there is none."""
    command, environment = python_module(MODULE)
    limits = ProcessLimits(seconds=WITHIN, memory_bytes=3 << 30, output_bytes=32 << 20)
    try:
        answer = msgspec.json.decode(
            run_limited(command, msgspec.json.encode(request), limits, environment), type=PreviewAnswer
        )
    except (LimitedProcessError, msgspec.DecodeError) as error:
        raise NoPreviewError(f"the preview gave no answer: {error}") from error
    if answer.problem is not None:
        raise NoPreviewError(answer.problem)
    return bytes(answer.content)


def stored_preview(store: SqlStore, view: GateView, store_at: str, event: Event | None) -> Preview:
    """The preview on the accounts of a view. NoDeployedSetError, PolicyProblemsError."""
    policies = deployed_set(store).policies
    interpreter, memory = from_store(policies, store)
    now = tick_time(store, SystemClock())
    received = received_at(store_at, now)
    snapshot = Snapshot(
        now,
        tuple(each.state for each in view.accounts),
        "killswitch.snapshot/v1",
        events=(*store.pending_events(), *(() if event is None else (event,))),
        closings=closes_under_way(store),
        alerts=received.alerts,
        alerts_as_of=received.alerts_as_of,
        locks=view.locks,
    )
    memory = f"{memory}; the accounts as of the last tick"
    return preview(policies, snapshot, interpreter, memory, frozenset(), with_levels=event is None)


def encode_command_preview(shown: Preview, view: GateView, event: Event, scopes: tuple[str, ...] = EVERYTHING) -> bytes:
    """What a tick would decide about the command: its decisions with every order, its notices, what follows a reset.

    Nothing of it is of a scope that `scopes` do not reach, such as what another command of the same tick decides.
    """

    def may_see(scope: str) -> bool:
        return is_covered(scope, scopes)

    decisions = [each for each in shown.decisions if each.author == event.author and may_see(each.scope)]
    return _ENCODER.encode(
        {
            "format": "killswitch.command-preview/v1",
            "book_as_of": view.as_of,
            "unreadable": shown.unreadable_of(accounts_seen(shown.accounts, may_see)),
            "decisions": [decision_record(each) for each in decisions],
            "notices": [
                each
                for each in shown.notices
                if each.policy == OPERATOR and (may_see(each.scope) or each.subject == event.id)
            ],
            "follows": list(after_resets(decisions, shown.policies)),
        }
    )


def _answer(request: PreviewRequest) -> PreviewAnswer:
    try:
        view = decode_gate_view(gate_view_file(request.store).read_bytes())
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        return PreviewAnswer(problem=f"no view of the run can be read ({error}): is `ksctl run` alive on this store?")
    store = open_store(request.store, read_only=True)
    try:
        shown = stored_preview(store, view, request.store, request.event)
    except (NoDeployedSetError, PolicyProblemsError) as error:
        return PreviewAnswer(problem=str(error))
    finally:
        store.close()
    if request.event is None:
        return PreviewAnswer(msgspec.Raw(encode_preview(shown)))
    return PreviewAnswer(msgspec.Raw(encode_command_preview(shown, view, request.event, request.scopes)))


def serve(source: IO[bytes], out: IO[bytes]) -> None:
    """Read one request, and write the answer."""
    request = msgspec.json.decode(source.read(), type=PreviewRequest)
    out.write(_ENCODER.encode(_answer(request)))


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
