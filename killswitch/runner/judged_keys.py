"""Which alerts of earlier runs this run can judge: that of a part which this run does not have is not over."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Protocol, runtime_checkable

from msgspec.structs import replace

from killswitch.engine.alerts import AlertState, KnownAlert
from killswitch.engine.notice_titles import OF_ACCOUNT, OPTIONAL


@runtime_checkable
class JudgesKeys(Protocol):
    """A part with alerts that not every run has."""

    @property
    def judges(self) -> tuple[str, ...]:
        """How the keys begin, up to a slash, that it finds, or knows to be unknown, in this run."""


def judged_by(parts: Iterable[object]) -> tuple[str, ...]:
    """How the keys begin that the parts of a run judge."""
    return tuple(start for part in parts if isinstance(part, JudgesKeys) for start in part.judges)


def unjudged(keys: Iterable[str], judged: Iterable[str]) -> tuple[str, ...]:
    """The keys of optional parts of which none begins as `judged` says."""
    starts = frozenset(judged)
    return tuple(key for key in keys if key.partition("/")[0] in OPTIONAL and not starts.intersection(_starts(key)))


def ending_with_accounts(state: AlertState, accounts: Container[str]) -> tuple[AlertState, tuple[str, ...]]:
    """The state whose alerts of other accounts than these end with a notice that says so, and the keys of the others.

    An account that is not among those of the configuration was removed from it: no part will find its alerts to be
    over.
    """
    known = {key: _ending(each, accounts) for key, each in state.known.items()}
    removed = {key for key, each in known.items() if each is not state.known[key]}
    others = tuple(each.alert.key for each in state.active if each.alert.key not in removed)
    return (replace(state, known=known) if removed else state), others


def _ending(known: KnownAlert, accounts: Container[str]) -> KnownAlert:
    part, name = (*known.alert.key.split("/"), "")[:2]
    if part not in OF_ACCOUNT or name in accounts or not known.is_active:
        return known
    heading, over = f"account {name} is no longer configured", f"{known.alert.key} has ended"
    return replace(known, alert=replace(known.alert, heading=heading, over=over, resolves=True))


def _starts(key: str) -> Iterable[str]:
    """The key, and each beginning of it that ends before a slash."""
    parts = key.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
