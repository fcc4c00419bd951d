"""What sends to each target of the routes, with secrets looked up at the last moment and kept out of every text."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from killswitch.graph.routing import RouteTarget
from killswitch.incident.apprise_target import AppriseSender
from killswitch.incident.targets import FileSender, LogSender, NotSentError, Sender
from killswitch.runner.credentials import CredentialError, resolve_one
from killswitch.runner.discretion import Redactor

SHORTEST_SECRET = 4
"""Characters: a shorter part of a URL is no secret, and hiding it would make every reason unreadable."""


def sender(target: RouteTarget) -> Sender:
    """What sends to `target`. Nothing is opened, looked up or imported yet."""
    if target.kind == "log":
        return LogSender(target.to)
    if target.kind == "file":
        return FileSender(target.to)
    return AppriseSender(target.to, lambda: _secret(target.to), discreet if _refers(target.to) else lambda _: str)


def _refers(to: str) -> bool:
    """Whether it refers to a secret; what is written out holds none, by the schema."""
    return to.startswith(("env:", "file:"))


def _secret(to: str) -> str:
    """The Apprise URL itself."""
    if not _refers(to):
        return to
    try:
        return resolve_one(to)
    except CredentialError as error:
        raise NotSentError(str(error)) from None


def discreet(url: str) -> Callable[[str], str]:
    """What takes an Apprise URL out of a text, and every part of it: any of them may be a token."""
    parts = {url, unquote(url)}
    try:
        split = urlsplit(url)
        parts |= {split.netloc, split.path, split.query}
    except ValueError:
        pass  # no URL at all: the pieces below are all there is
    for each in tuple(parts):
        parts |= set(_pieces(each)) | set(_pieces(unquote(each)))
    return Redactor(part for part in parts if len(part) >= SHORTEST_SECRET).hide


def _pieces(text: str) -> list[str]:
    for mark in "/@:?&=#,;+ ":
        text = text.replace(mark, "\0")
    return text.split("\0")
