"""The state between a source and the set in force, as the store keeps it, and what of it is shown.

Times in force are counted, not computed from dates: a clock that is set forward must not end a delay.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.model.applied_set import Approval, ChangeClass
from killswitch.source.candidate import Review, SourceProblem

SOURCE_STATE: Final = "policy_source"
"""The live blob with the state of the source."""
SOURCE_COMMANDS: Final = "policy_source_command/"
"""How the names of the live blobs begin in which operators leave commands: one for each, by its id."""

Sync = Literal["synced", "out of sync"]
Health = Literal["healthy", "degraded", "degraded + page"]
WaitFor = Literal["poll", "review", "approvals", "arrival", "delay", "shadow", "close", "start", "operator"]
HoldKind = Literal["rollback", "pin", "pause"]
CommandVerb = Literal["rollback", "pin", "pause", "resume", "anchor"]


class SourcePlace(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a source is, as statements name it: a ref and a path of a repository, and nothing of a folder."""

    ref: str | None = None
    path: str | None = None


class SourceRules(Struct, frozen=True, kw_only=True):
    """What the configuration of the runner demands; microseconds."""

    poll: int
    stale_after: int | None = None
    frozen_after: int | None = None
    loosening_after: int = 0
    shadow_before: int = 0
    place: SourcePlace | None = None
    """Null in a state that a version without it has left."""


class Head(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The newest set that the source proposes, compared with the set in force when it was polled."""

    folder_digest: str
    base: str
    """The folder digest of the set in force when it was polled."""
    commit: str | None = None
    generation: str | None = None
    mark: str = ""
    signers: tuple[str, ...] = ()
    claimed: tuple[str, ...] = ()
    is_protected: bool = True
    manifest_version: int | None = None
    seen_at: int = 0
    """When it was polled first, by the clock of the runner; shown only."""
    review: Review | None = None
    reviewed_for: int = 0
    """How long ago the review was made."""
    delayed: int = 0
    """How long it has waited since its loosening was approved."""
    shadowed: int | None = None
    """How long it was in shadow; None where nothing has it in shadow."""
    problems: tuple[SourceProblem, ...] = ()
    """Why it is not taken, by its review, by the compiler, or by the runner."""
    arrival_accepted_by: str | None = None
    """The operator who has reloaded an unprotected source while the set waited for what it would fire."""
    held: tuple[WaitFor, str] | None = None
    """What the runner holds it for, and in words; it is taken as soon as that is over."""


class Hold(Struct, frozen=True, kw_only=True):
    """An operator has suspended the source. `left`: for how long, in time of the runner."""

    kind: HoldKind
    author: str
    reason: str
    at: int
    left: int
    remind: int
    """The time between two reminders."""
    lasted: int = 0
    digest: str | None = None
    """The policy digest of the set that it keeps in force, where that is still to be taken."""


class BadSet(Struct, frozen=True):
    """A set that an operator rolled back: it is not taken again until an operator forgets it."""

    folder_digest: str
    commit: str | None
    author: str
    reason: str
    at: int


class RefusedAttempt(Struct, frozen=True):
    """A proposed set that was not taken, for the record: once for each set and cause."""

    at: int
    folder_digest: str | None
    commit: str | None
    principal: str | None
    code: str | None
    """None where it waits for something and nothing is wrong."""
    text: str


class CommandResult(Struct, frozen=True):
    """What became of an operator's command."""

    id: str
    is_accepted: bool
    text: str
    verb: CommandVerb | None = None


class SourceCommand(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A command of an operator, as it is delivered. `lasts`, `remind`: microseconds."""

    id: str
    verb: CommandVerb
    author: str
    reason: str
    at: int
    lasts: int = 0
    remind: int = 0
    digest: str | None = None
    """The policy digest of a set that was in force; for `anchor` the commit."""
    forget: str | None = None
    """For `resume`: the commit or the digest of a bad set that may be taken again."""


class SourceState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What must survive a restart. The files of the set in force are in the store, others are polled again."""

    source: str
    rules: SourceRules | None = None
    """Those of the last run, by which its state is shown."""
    in_force: str = ""
    """The folder digest of the set in force; empty: no set is."""
    policy_digest: str = ""
    commit: str | None = None
    """The commit in force, from which on the source is read."""
    floor: str | None = None
    """The newest commit that was ever in force: no head may be without it (H4), also after a rollback."""
    anchor: str | None = None
    """The anchor that an operator has moved to."""
    manifest_version: int = 0
    is_protected: bool = True
    needs_start: tuple[str, ...] = ()
    head: Head | None = None
    problems: tuple[SourceProblem, ...] = ()
    """Those of the last answer."""
    progress: str | None = None
    failures: int = 0
    """Answers with problems in a row."""
    answered_at: int | None = None
    """When the source last answered without a problem, by the clock of the runner."""
    answer_age: int = 0
    """How long ago that is, as counted."""
    newest_commit_at: int | None = None
    hold: Hold | None = None
    bad: tuple[BadSet, ...] = ()
    spent: tuple[str, ...] = ()
    refused: tuple[RefusedAttempt, ...] = ()
    results: tuple[CommandResult, ...] = ()
    verified: bytes | None = None
    """What the source has verified so far, for its next poll."""


class Take(Struct, frozen=True):
    """The head is to be put in force now; these approvals are spent by it."""

    folder_digest: str
    verdict: ChangeClass
    approvals: tuple[Approval, ...] = ()


class Restore(Struct, frozen=True):
    """A set that was in force is to be put in force again, at once, as an operator commands."""

    policy_digest: str
    hold: Hold


class Wait(Struct, frozen=True):
    """Nothing is to be done until something happens. `left`: microseconds, where that is known."""

    what: WaitFor
    text: str
    left: int | None = None


class Keep(Struct, frozen=True):
    """The set in force stays, because of these problems."""

    problems: tuple[SourceProblem, ...]


class Stay(Struct, frozen=True):
    """The head is in force."""


SyncStep = Take | Restore | Wait | Keep | Stay


class SourceCondition(Struct, frozen=True):
    """Sync and health, with the culprit and what is waited for: the same in status, metric and page."""

    sync: Sync
    health: Health
    culprit: SourceProblem | None = None
    wait: Wait | None = None
    hold: Hold | None = None
    is_protected: bool = True
    answer_age: int | None = None
    """Microseconds since the last answer without a problem; None: there was none."""
    commit_age: int | None = None
    """Microseconds since the date of the newest commit; None: no commit is known."""


_ENCODER = msgjson.Encoder()
_DECODER = msgjson.Decoder(SourceState)
_COMMAND_DECODER = msgjson.Decoder(SourceCommand)
encode_source = _ENCODER.encode
decode_source = _DECODER.decode
decode_command = _COMMAND_DECODER.decode
