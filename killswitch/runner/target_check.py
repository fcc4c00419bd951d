"""Which targets of notifications cannot work from here, and which names nobody takes: known before the incident."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from killswitch.deadline import NoThreadError, begin
from killswitch.graph.nodes import PolicySet
from killswitch.graph.routing import RouteTarget
from killswitch.incident.message import Message
from killswitch.incident.targets import NotSentError
from killswitch.policy.diagnostics import Diagnostic, diagnostic, in_order
from killswitch.runner.target_senders import sender

PATIENCE = 10.0
"""Seconds for the look at the targets: a file may be on a disk that no longer answers, and Apprise takes its time."""
DELIVERY_PATIENCE = 30.0
"""Seconds for a message: longer than a service may take to be connected to, and to answer."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of a message to one target. `error`: why it was not taken; None where it was."""

    target: str
    routes: tuple[str, ...]
    error: str | None


def deliver(policies: PolicySet, message: Message, patience: float = DELIVERY_PATIENCE) -> tuple[Delivered, ...]:
    """Send `message` to every target once, all at the same time, and wait for each."""
    routes: dict[RouteTarget, list[str]] = {}
    for route in policies.routes:
        for target in route.targets:
            routes.setdefault(target, []).append(route.name)
    begun = [_begin(target, partial(_send, target, message)) for target in routes]
    ends = [attempt.end(patience) for attempt in begun]
    return tuple(
        Delivered(target.key, tuple(names), error) for (target, names), error in zip(routes.items(), ends, strict=True)
    )


def unusable_targets(policies: PolicySet, patience: float = PATIENCE) -> dict[RouteTarget, str]:
    """Every target that could not be sent to from this process, with the reason. Sends nothing."""
    targets = dict.fromkeys(target for route in policies.routes for target in route.targets)
    begun = {target: _begin(target, sender(target).check) for target in targets}
    found = {target: attempt.end(patience) for target, attempt in begun.items()}
    return {target: why for target, why in found.items() if why is not None}


def target_warnings(policies: PolicySet) -> tuple[Diagnostic, ...]:
    """The same as diagnostics, at each route that names such a target."""
    return in_order(_warnings(policies))


def _warnings(policies: PolicySet) -> Iterator[Diagnostic]:
    unusable = unusable_targets(policies)
    for route in policies.routes:
        for target, place in zip(route.targets, route.target_places, strict=True):
            if target in unusable:
                message = f"this target takes no message from this process: {unusable[target]}"
                fix = "put it right where the runner runs; `ksctl notify test` sends a message through every route"
                length = len(target.to) + 2 * place.text[place.column - 1 :].startswith(("'", '"'))
                yield diagnostic("KS5029", place, message, fix, length=length, severity="warning")


class _Attempt:
    """Something that is tried in a thread of its own: a disk or a service that hangs holds up nothing else."""

    def __init__(self, name: str, deed: Callable[[], None]) -> None:
        self._deed = deed
        self._error: str | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            begin(self._thread)
        except NoThreadError as error:
            self._error = str(error.strerror)

    def end(self, patience: float) -> str | None:
        """Why it failed, or that it has not ended within `patience` seconds; None where it worked."""
        if self._thread.ident is None:
            return self._error
        self._thread.join(patience)
        return f"no answer within {patience:g} s" if self._thread.is_alive() else self._error

    def _run(self) -> None:
        try:
            self._deed()
        except NotSentError as error:
            self._error = str(error)
        except Exception as error:  # noqa: BLE001 - a plugin of somebody else may raise anything, with the URL in it
            self._error = f"unexpected {type(error).__name__}"


def _begin(target: RouteTarget, deed: Callable[[], None]) -> _Attempt:
    return _Attempt(f"notify {target.kind}", deed)


def _send(target: RouteTarget, message: Message) -> None:
    sender(target).send(message)
