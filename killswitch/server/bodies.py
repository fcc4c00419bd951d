"""Bodies of requests and answers, as the description of the API has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from killswitch.model.snapshot import Side
from killswitch.model.words import Cause, ChangeCause, LockMode
from killswitch.server.access import EffectClass


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("the reason is blank: say why, for the record")
    return text


RecordedReason = Annotated[
    str, Field(min_length=1, max_length=500, json_schema_extra={"pattern": r"\S"}), AfterValidator(_not_blank)
]
"""Why a person gives a command, for the record: not blank, as `ksctl` demands."""


class ProblemBody(BaseModel):
    """An error, as `application/problem+json`."""

    type: str
    title: str
    status: int
    detail: str


class BeatBody(BaseModel):
    """A heartbeat. `progress`: a counter of the sender's loops."""

    model_config = ConfigDict(extra="forbid")
    progress: Annotated[int | None, Field(ge=0, le=2**63 - 1)] = None


class BeatAge(BaseModel):
    """Seconds since the newest heartbeat arrived, and its progress."""

    age: float
    progress: int | None


class CommandBody(BaseModel):
    """An operator command. The author is the principal of the token."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal[
        "close", "halt", "cancel", "lock", "unlock", "reset", "flag", "pause", "resume", "acknowledge", "give_up",
        "restate", "apply",
    ]  # fmt: skip
    scope: Annotated[str | None, Field(max_length=200)] = None
    reason: RecordedReason
    cause: Cause | None = None
    force: bool = False
    mode: LockMode | None = None
    """The mode of the lock that a `lock` or a `close` writes. Left out: `reduce_only`."""
    side: Side | None = None
    """The side of the scope that a `close`, `halt`, `cancel` or `lock` is about. Left out: both."""
    symbols: Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]] | None, Field(max_length=100)] = None
    """The symbols of the scope that it is about. Left out: all."""
    all_orders: bool = False
    """Whether a `halt` or a `cancel` also cancels stops and exits."""
    ids: Annotated[list[Annotated[str, Field(min_length=6, max_length=100)]] | None, Field(max_length=100)] = None
    """The decisions that an `unlock`, a `reset` or a `resume` of a scope ends. Needed for those; left out, the answer
    lists them. An empty list ends only what has no id, such as the lock of another program."""
    seconds: Annotated[float | None, Field(gt=0, le=30 * 86400)] = None
    flag: Annotated[str | None, Field(max_length=100)] = None
    set: bool | None = None
    decision: Annotated[str | None, Field(max_length=100)] = None
    """The whole id of the decision whose closing a `give_up` ends."""
    change: Annotated[str | None, Field(max_length=100)] = None
    """The unexplained change of equity that a `restate` settles, and `as` what it is."""
    restated_as: Annotated[ChangeCause | None, Field(alias="as")] = None
    plan: Annotated[str | None, Field(max_length=60_000)] = None
    """The text of the file of a saved plan, which an `apply` carries out."""
    incident: Annotated[str | None, Field(min_length=4, max_length=100)] = None
    """The incident, decision or message that an `acknowledge` is about, or the beginning of its id."""
    number: Annotated[int | None, Field(ge=1)] = None
    """The number of the newest firing that was shown to whoever acknowledges. Left out: the newest now."""


CommandState = Literal["accepted", "taken", "applied", "expired"]
"""`accepted` until a runner has taken it, `taken`, then `applied`; `expired`: no runner took it in time."""


class Accepted(BaseModel):
    """A command that is on disk. `decisions` and `notices`: those of the tick that applied it."""

    id: str
    kind: str
    scope: str | None
    effect: EffectClass
    state: CommandState
    is_replay: bool
    runner: str
    decisions: list[str] = []
    notices: list[str] = []
    sentinel: str | None = None
    """The sentinel file that a halt of everything has created; it must be removed before that can end."""
    remarks: list[str] = []
    """What could not be done besides the command."""


ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ProblemBody, "description": what, "content": {"application/problem+json": {}}}
    for code, what in {
        400: "The request cannot be read.",
        401: "No valid token.",
        403: "The token may not do that, or a page of another origin asks.",
        404: "There is no such thing.",
        409: "The policies, the accounts or the record have no such thing, or it was done already.",
        413: "The body is too long.",
        415: "The body is no JSON.",
        421: "The Host is not one of this server.",
        429: "Too many requests of this kind, or failed logins.",
        422: "A field is missing or wrong, or the idempotency key was used with another body.",
        503: "The store, or its runner, takes no more at the moment.",
    }.items()
}
