"""Approvals of resets and of steps of the way back: verified statements become events of the next tick.

A statement is passed on once, also over restarts. What it approves, and whether its author has approved it already, is
judged by planning; here is only who has signed it, for which purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from msgspec import json as msgjson

from killswitch.model.clock import Clock
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Event
from killswitch.model.store import Store, decoded
from killswitch.source.statement_signatures import StatementProblem, verify_statement
from killswitch.source.statements import StatementError, read_approval
from killswitch.source.trust import Trust
from killswitch.source.trust_file import TrustFileError, parse_trust

PASSED_ON: Final = "passed_step_approvals"
"""The live blob with the ids of the statements that were passed on, as far as they are still delivered."""
_IDS: Final = msgjson.Decoder(list[str])


class StepApprovals:
    """Passes the approvals of resets and steps on, on the thread of the source."""

    def __init__(self, source: str, store: Store, clock: Clock) -> None:
        """`source`: the name in the statements that count."""
        self._source = source
        self._store = store
        self._clock = clock
        self._seen = frozenset(decoded(_IDS.decode, store.live(PASSED_ON)) or ())
        self._refused: frozenset[str] = frozenset()
        """The ids of statements that do not count in this run: they are looked at again after a start."""

    def pass_on(self, delivered: Mapping[str, bytes], trust: Callable[[], bytes | None]) -> None:
        """Pass on the statements that were not yet. `delivered`: id → file; `trust`: reads the trust file in force."""
        new = {name: content for name, content in delivered.items() if name not in self._seen | self._refused}
        if not new:
            return
        steps = {name: content for name, content in new.items() if _is_of_command(content)}
        self._refused |= new.keys() - steps.keys()
        trusted = _trust(trust()) if steps else None
        if trusted is None:
            return
        events = list(self._events(steps, trusted))
        for event in events:
            self._store.put_event(event)
        passed = {event.id.removeprefix("approve-") for event in events}
        self._refused |= steps.keys() - passed
        if passed:
            self._seen = frozenset(delivered) & (self._seen | passed)
            self._store.put_live(PASSED_ON, msgjson.encode(sorted(self._seen)))

    def _events(self, statements: Mapping[str, bytes], trust: Trust) -> Iterable[Event]:
        now = self._clock.now()
        for name, content in statements.items():
            found = verify_statement(read_approval(content), trust, to_micros(now))
            if isinstance(found, StatementProblem) or found.statement.source != self._source or found.id != name:
                continue
            yield Event(
                f"approve-{found.id}", now, "approve", author=found.principal, reason=f"signed with {found.key}",
                approves=found.statement.subject,
            )  # fmt: skip


def _is_of_command(content: bytes) -> bool:
    """Whether it approves a reset or a step, and names one of its purpose: a reset is never approved as a step."""
    try:
        statement = read_approval(content).statement
    except StatementError:
        return False
    return statement.purpose in ("reset", "recovery") and (statement.subject or "").startswith(f"{statement.purpose}/")


def _trust(text: bytes | None) -> Trust | None:
    try:
        return None if text is None else parse_trust(text, "the trust file")
    except TrustFileError:
        return None
