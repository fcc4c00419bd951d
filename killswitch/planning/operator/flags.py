"""The flags of operators over the ticks: commands that set and clear them, their end, and a notice of each change.

Pauses of policies are flags, too; `killswitch.planning.operator.pauses` has what is different about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from killswitch.graph.nodes import PolicySet
from killswitch.model.alert import NO_ALERTS, Alerts
from killswitch.model.decision import Notice, NoticeKind
from killswitch.model.flags import NO_FLAGS, Flag, decode_flags, encode_flags, is_of_policy
from killswitch.model.instant import from_micros, to_micros
from killswitch.model.snapshot import Event
from killswitch.planning.operator import pauses
from killswitch.planning.operator.closes import OPERATOR
from killswitch.render.formats import instant
from killswitch.signals.system_signals import flags_read

FLAG_CHANGE = "flag-"
"""How the subject of every notice about a flag begins: the id of its command, or of its end."""


class OperatorFlags:
    """The flags in force. They belong to no policy, so that one which is added later reads them too."""

    def __init__(self, policies: PolicySet) -> None:
        self.flags = self._stored = NO_FLAGS
        self.reload(policies)

    def reload(self, policies: PolicySet, renamed: Mapping[str, str] | None = None) -> None:
        """Name the policies and the readers of flags by the next set; flags and pauses stay.

        `renamed`: former name → name of each policy that was renamed, whose pause moves with it (R6).
        """
        if renamed:
            self.flags = self.flags.renamed(renamed)
        self._policies = frozenset(graph.policy for graph in policies.graphs)
        self._read_by: dict[str, list[str]] = {}
        for graph in policies.graphs:
            for name in sorted(flags_read((each.name, each.arguments) for each in graph.signals)):
                self._read_by.setdefault(name, []).append(graph.policy)

    def restore(self, blob: bytes | None, outage: tuple[int, int] | None) -> None:
        """Restore the stored flags; DamagedStateError if they are damaged.

        `outage`: start and end of the time without measurements (microseconds), which shortens no flag.
        """
        self.flags = self._stored = decode_flags(blob)
        if outage is not None:
            self.flags = self.flags.after_outage(*outage)

    def changed(self) -> bytes | None:
        """The flags, to be stored with the tick; None if they are as at the last call."""
        if self.flags == self._stored:
            return None
        self._stored = self.flags
        return encode_flags(self.flags)

    def observe(self, events: Iterable[Event], now: int) -> list[Notice]:
        """Apply the commands of a tick, and end what is over."""
        issued = []
        for event in events:
            if event.kind == "flag":
                issued.append(self._applied(event, now))
            elif event.kind in ("pause", "resume") and is_of_policy(event):
                self.flags, notice = pauses.applied(event, self.flags, self._policies, now)
                issued.append(notice)
        if not self.flags.in_force:
            return issued
        self.flags, expired = self.flags.without_expired(from_micros(now))
        return [*issued, *(_over(each, now) for each in expired)]

    def alerts(self, now: int) -> Alerts:
        """The pauses in force at `now` (microseconds)."""
        paused = self.flags.pauses if self.flags.in_force else None
        return pauses.pause_alerts(paused, self._policies, now) if paused else NO_ALERTS

    def _applied(self, event: Event, now: int) -> Notice:
        before, scope = self.flags, event.scope or "portfolio"
        by = f"by {event.author or 'unknown'} ({event.reason or 'no reason given'})"
        if event.flag is None or event.is_set is None:
            text = "a flag was neither set nor cleared: the command names none"
            return _notice(now, scope, text, event.id, failed=True)
        if event.is_set and event.until is not None and to_micros(event.until) <= now:
            text = f"the flag {event.flag} was not set: it was to end at {instant(event.until)}, before this tick"
            return _notice(now, scope, text, event.id, failed=True)
        self.flags = before.after(event)
        if event.is_set:
            flag = self.flags.in_force[-1]
            return _notice(
                now, scope, f"{_name(flag)} is set {_until(flag)} {by}; {self._readers(flag.name)}", event.id
            )
        cleared = [flag for flag in before.in_force if flag not in self.flags.in_force]
        if not cleared:
            where = "" if event.scope is None else f" for {event.scope}"
            known = ", ".join(sorted({flag.name for flag in before.read})) or "none"
            text = f"the flag {event.flag} was not cleared: it is not set{where}. Set now: {known}"
            return _notice(now, scope, text, event.id, failed=True)
        what = " and ".join(map(_name, cleared))
        return _notice(now, scope, f"{what} {'are' if len(cleared) > 1 else 'is'} cleared {by}", event.id)

    def _readers(self, name: str) -> str:
        """Which policies read the flag: a name that none reads has no effect."""
        found = self._read_by.get(name)
        return f"read by {' and '.join(found)}" if found else "no policy reads it, so it has no effect"


def _over(flag: Flag, now: int) -> Notice:
    if flag.policy is not None:
        return pauses.over(flag, now)
    text = f"{_name(flag)} is over: it was set {_until(flag)}"
    return _notice(now, flag.scope, text, f"{FLAG_CHANGE}over/{flag.name}")


def _name(flag: Flag) -> str:
    return f"the flag {flag.name} for {flag.scope}"


def _until(flag: Flag) -> str:
    return "until it is cleared" if flag.until is None else f"until {instant(flag.until)}"


def _notice(now: int, scope: str, text: str, subject: str, *, failed: bool = False) -> Notice:
    kind: NoticeKind = "nothing_selected" if failed else "warning"
    title = "a flag is not changed" if failed else ""
    return Notice(from_micros(now), OPERATOR, scope, kind, "warning" if failed else "info", text, subject, title=title)
