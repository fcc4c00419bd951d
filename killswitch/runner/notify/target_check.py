"""The targets of notification routes: their senders, test messages, and which are unusable from this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from functools import partial
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from killswitch.accounts.credentials import CredentialError, resolve_one
from killswitch.accounts.redaction import Redactor
from killswitch.deadline import DaemonThreadExecutor, NoThreadError
from killswitch.graph.nodes import PolicySet
from killswitch.graph.routing import RouteTarget, receivers_of
from killswitch.incident.notify.apprise_target import AppriseSender
from killswitch.incident.notify.custom_target import custom_sender
from killswitch.incident.notify.message import Message
from killswitch.incident.notify.targets import FileSender, LogSender, NotSentError, Sender
from killswitch.policy.diagnostics.diagnostic import Diagnostic, diagnostic, in_order

CHECK_TIMEOUT = 10.0
"""Seconds for the check of the targets: a file may be on a disk that hangs, and importing Apprise is slow."""
DELIVERY_TIMEOUT = 30.0
"""Seconds for a message: longer than connecting to a service and its answer may take."""


class Delivered(Struct, frozen=True):
    """The delivery of a message to one target. `error`: why it failed; None if it was accepted."""

    target: str
    routes: tuple[str, ...]
    error: str | None


def deliver(policies: PolicySet, message: Message, timeout: float = DELIVERY_TIMEOUT) -> tuple[Delivered, ...]:
    """Send `message` to every target once, all at the same time, and wait for each."""
    routes: dict[RouteTarget, list[str]] = {}
    for name, receiver in receivers_of(policies.routes, policies.notification):
        for target in receiver.targets:
            routes.setdefault(target, []).append(name)
    ends = _attempts({target: partial(_send, target, message) for target in routes}, timeout)
    return tuple(Delivered(target.key, tuple(names), ends[target]) for target, names in routes.items())


def unusable_targets(policies: PolicySet, timeout: float = CHECK_TIMEOUT) -> dict[RouteTarget, str]:
    """Every target that could not be sent to from this process, with the reason. Sends nothing."""
    receivers = receivers_of(policies.routes, policies.notification)
    targets = dict.fromkeys(target for _, receiver in receivers for target in receiver.targets)
    found = _attempts({target: sender(target).check for target in targets}, timeout)
    return {target: why for target, why in found.items() if why is not None}


def target_warnings(policies: PolicySet) -> tuple[Diagnostic, ...]:
    """The unusable targets as diagnostics, at each route that names one."""
    return in_order(_warnings(policies))


def _warnings(policies: PolicySet) -> Iterator[Diagnostic]:
    unusable = unusable_targets(policies)
    for _, receiver in receivers_of(policies.routes, policies.notification):
        for target, place in zip(receiver.targets, receiver.target_places, strict=True):
            if target in unusable:
                message = f"this target accepts no message from this process: {unusable[target]}"
                fix = "correct it on the machine of the runner; `ksctl notify test` sends a message through every route"
                length = len(target.to) + 2 * place.text[place.column - 1 :].startswith(("'", '"'))
                yield diagnostic("KS5029", place, message, fix, length=length, severity="warning")


def _attempts(attempts: Mapping[RouteTarget, Callable[[], None]], timeout: float) -> dict[RouteTarget, str | None]:
    """Run the attempts; for each, why it failed or that it has not ended in time, or None if it succeeded.

    They run at the same time, each in a thread of its own: a disk or a service that hangs delays no other.
    """
    begun = {target: DaemonThreadExecutor(f"notify {target.kind}").submit(do) for target, do in attempts.items()}
    return {target: _end(future, timeout) for target, future in begun.items()}


def _end(attempt: Future[None], timeout: float) -> str | None:
    wait([attempt], timeout)
    if not attempt.done():
        return f"no answer within {timeout:g} s"
    match attempt.exception():
        case None:
            return None
        case NoThreadError() as error:
            return str(error.strerror)
        case NotSentError() as error:
            return str(error)
        case error:  # of a third-party plugin, even SystemExit: its message may contain the URL
            return f"unexpected {type(error).__name__}"


def _send(target: RouteTarget, message: Message) -> None:
    sender(target).send(message)


SHORTEST_SECRET = 4
"""Characters: a shorter part of a URL is no secret, and hiding it would make every reason unreadable."""


def sender(target: RouteTarget) -> Sender:
    """The sender of `target`. Nothing is opened, looked up or imported yet."""
    if target.kind == "log":
        return LogSender(target.to)
    if target.kind == "file":
        return FileSender(target.to)
    if target.kind == "custom":
        return custom_sender(target.to)
    return AppriseSender(target.to, lambda: _secret(target.to), url_redaction if _refers(target.to) else lambda _: str)


def _refers(to: str) -> bool:
    """Whether the target refers to a secret; by the schema, a literal URL contains none."""
    return to.startswith(("env:", "file:"))


def _secret(to: str) -> str:
    """The Apprise URL itself."""
    if not _refers(to):
        return to
    try:
        return resolve_one(to)
    except CredentialError as error:
        raise NotSentError(str(error)) from None


def url_redaction(url: str) -> Callable[[str], str]:
    """A function that removes an Apprise URL, and every part of it, from a text: any part may be a token."""
    parts, hosts = {url, unquote(url)}, set[str]()
    try:
        split = urlsplit(url)
        parts |= {split.netloc, split.path, split.query}
        if split.scheme in _WITH_A_HOST:
            hosts = {split.hostname or "", split.netloc.rpartition("@")[2]}
    except ValueError:
        pass  # not a URL: the pieces below are its only parts
    for each in tuple(parts):
        parts |= set(_pieces(each)) | set(_pieces(unquote(each)))
    parts -= hosts
    return Redactor((part for part in parts if len(part) >= SHORTEST_SECRET), hosts).hide


_WITH_A_HOST = frozenset({"json", "jsons", "xml", "xmls", "form", "forms"})
"""Schemes whose URL names a host; with others, that place may hold a token."""


def _pieces(text: str) -> list[str]:
    for mark in "/@:?&=#,;+ ":
        text = text.replace(mark, "\0")
    return text.split("\0")
