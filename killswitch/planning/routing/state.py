"""What routing remembers from tick to tick, stored with each tick: who was sent what, groups, holds and open pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

from msgspec import Struct, field
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.graph.routing import Escalation, MessageAttributes, MessageSilence
from killswitch.model.store import decoded
from killswitch.model.words import Severity

GRAVITY: Mapping[Severity, int] = {"info": 0, "warning": 1, "page": 2}
T = TypeVar("T")
Why = Literal[
    "no_route",  # no node takes it
    "silenced",
    "muted",
    "inhibited",
    "ended",  # it was over before it was sent
    "drill_ended",  # a real event ended the drill that it belongs to
    "not_sent",  # it ends what nobody was sent
    "replaced",  # another message of its alert came before it was sent
]
Purpose = Literal["first", "repeat", "escalation", "reminder", "all_clear"]


class Announcement(Struct, frozen=True, omit_defaults=True):
    """One message before it has a receiver. `content` is the encoded message.

    `alert` is the stable identity of what it is about: announcements of one alert keep their order, and the one that
    `ends` it goes to whoever was sent one that `lasts`. One that neither lasts nor ends stands for itself. `page`: the
    thread of its message, and the keys of all pages about the alert so far, which its end has to name.
    """

    id: str
    at: int
    attributes: MessageAttributes
    alert: str
    content: bytes
    is_urgent: bool = False
    lasts: bool = False
    ends: bool = False
    escalates: bool = False
    is_drill: bool = False
    decision: str | None = None
    page: tuple[str, ...] = ()


class SentAlert(Struct, frozen=True, omit_defaults=True):
    """An active alert that a receiver was sent. `reminded`: when last; None where nothing reminds of it."""

    announcement: Announcement
    node: str
    at: int
    reminded: int | None = None


class HeldAlert(Struct, frozen=True, omit_defaults=True):
    """An announcement that was due at a receiver and is held; why was recorded when it was first held."""

    announcement: Announcement
    node: str
    why: Why
    by: str


A = TypeVar("A", SentAlert, HeldAlert)


class MessageGroup(Struct, frozen=True, omit_defaults=True):
    """What one receiver gets together. Microseconds of the clock that does not jump.

    `due`: when `pending` is sent. `sent`: when the group was sent last; None: never. `highest`: the highest severity
    that was sent. `members`: the active alerts that were sent.
    """

    node: str
    receiver: str
    due: int
    sent: int | None = None
    highest: Severity = "info"
    pending: tuple[Announcement, ...] = ()
    members: dict[str, Announcement] = {}


class OpenPage(Struct, frozen=True, omit_defaults=True):
    """A firing that escalates until somebody acknowledges it, or it ends.

    `number` counts urgent announcements; an acknowledgement covers those up to the newest that its page showed.
    `steps` are those of its node at the time, so that a reload keeps them; `done`: how many of them were taken.
    """

    number: int
    announcement: Announcement
    node: str
    at: int
    steps: tuple[Escalation, ...]
    done: int = 0
    acknowledged_by: str | None = None
    acknowledged_at: int | None = None


class RunningSilence(Struct, frozen=True, omit_defaults=True):
    """A silence, and when it began by the clock that does not jump: it ends at its end or after its length, whichever
    is earlier."""

    silence: MessageSilence
    began: int
    length: int


class Suppressed(Struct, frozen=True, omit_defaults=True):
    """A message that a receiver was not sent, and why. `by`: the silence with its author, the source, or the time."""

    at: int
    alert: str
    message: str
    node: str
    receiver: str
    why: Why
    by: str = ""
    title: str = ""


class RoutingState(Struct, frozen=True, omit_defaults=True):
    """Everything that routing remembers. `sent` and `held`: receiver → alert; `groups`: by node, receiver, labels."""

    number: int = 0
    sent: dict[str, dict[str, SentAlert]] = field(default_factory=dict)
    held: dict[str, dict[str, HeldAlert]] = field(default_factory=dict)
    groups: dict[str, MessageGroup] = field(default_factory=dict)
    pages: tuple[OpenPage, ...] = ()
    silences: dict[str, RunningSilence] = field(default_factory=dict)
    commanded: tuple[MessageSilence, ...] = ()
    """Silences by command."""
    real: tuple[str, ...] = ()
    """The alerts of real firings that are active: while there are any, no drill is notified."""

    @property
    def unacknowledged(self) -> tuple[OpenPage, ...]:
        """The firings that nobody has acknowledged, each once: one that several nodes took has a page of each."""
        return tuple({page.number: page for page in self.pages if page.acknowledged_by is None}.values())


class Dispatch(Struct, frozen=True):
    """What one receiver is sent now. Announcements of one dispatch are one message to each of its targets."""

    receiver: str
    node: str
    announcements: tuple[Announcement, ...]
    purpose: Purpose = "first"


class Acknowledgement(Struct, frozen=True):
    """A person has seen the firings up to `number` that are about `about`: an id of a decision, an incident or a
    message, or "" for all that the number covers."""

    by: str
    at: int
    number: int
    about: frozenset[str] = frozenset()


class Routed(Struct, frozen=True):
    """The outcome of a step."""

    dispatches: tuple[Dispatch, ...]
    suppressed: tuple[Suppressed, ...]
    state: RoutingState


def without_ended(state: RoutingState, is_active: Callable[[str], bool]) -> RoutingState:
    """The state without alerts that have ended and whose end nobody is notified of."""
    known = {alert for alerts in state.sent.values() for alert in alerts}
    known |= {alert for alerts in state.held.values() for alert in alerts}
    known |= {alert for group in state.groups.values() for alert in group.members}
    if all(map(is_active, known)):
        return state

    def left(alerts: Mapping[str, T]) -> dict[str, T]:
        return {alert: each for alert, each in alerts.items() if is_active(alert)}

    groups = {key: replace(group, members=left(group.members)) for key, group in state.groups.items()}
    sent = {receiver: left(alerts) for receiver, alerts in state.sent.items()}
    return replace(state, sent=sent, held={to: left(alerts) for to, alerts in state.held.items()}, groups=groups)


def renamed_routing(state: RoutingState, renamed: Mapping[str, str]) -> RoutingState:
    """The state once policies have other names: their firings go on under these, and end with a reset of them.

    `renamed`: former name → name.
    """
    if not renamed:
        return state

    def name(alert: str) -> str:
        kind, _, rest = alert.partition("/")
        policy, _, scope = rest.partition("/")
        return f"{kind}/{renamed[policy]}/{scope}" if kind == "firing" and policy in renamed else alert

    def of(item: Announcement) -> Announcement:
        if name(item.alert) == item.alert:
            return item
        policy = renamed.get(item.attributes.policy, item.attributes.policy)
        return replace(item, alert=name(item.alert), attributes=replace(item.attributes, policy=policy))

    def moved(alerts: Mapping[str, A]) -> dict[str, A]:
        return {name(alert): replace(each, announcement=of(each.announcement)) for alert, each in alerts.items()}

    groups = {
        key: replace(
            group, pending=tuple(map(of, group.pending)),
            members={name(alert): of(each) for alert, each in group.members.items()},
        )
        for key, group in state.groups.items()
    }  # fmt: skip
    return replace(
        state, sent={receiver: moved(alerts) for receiver, alerts in state.sent.items()},
        held={receiver: moved(alerts) for receiver, alerts in state.held.items()}, groups=groups,
        pages=tuple(replace(page, announcement=of(page.announcement)) for page in state.pages),
        real=tuple(map(name, state.real)),
    )  # fmt: skip


_ENCODER = msgjson.Encoder()
_DECODER = msgjson.Decoder(RoutingState)


def encode_routing(state: RoutingState) -> bytes:
    """The state as it is stored with a tick."""
    return _ENCODER.encode(state)


def read_routing(blob: bytes | None) -> RoutingState:
    """The stored state; an empty one where there is none that this version can read."""
    return decoded(_DECODER.decode, blob) or RoutingState()
