"""Flags that operators set, with a name, a scope and perhaps an end: the fold of the events of kind `flag`.

A flag has an effect only where a policy reads it. Of several commands about one name and scope the last counts. A
pause of a policy (events of kind `pause` and `resume`) is a flag whose scope is the policy: no policy reads it, and it
always has an end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from msgspec import MsgspecError, Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.model.instant import from_micros, to_micros
from killswitch.model.snapshot import Event, Instant

PORTFOLIO = "portfolio"
PAUSE: Final = "pause"
"""The name of the flag that a pause is."""
OF_POLICY: Final = "policy/"
"""How the scope of a pause begins."""


class Flag(Struct, frozen=True, omit_defaults=True):
    """A flag in force. `scope` as in `account/main`; `until` is absent for one without end."""

    name: str
    scope: str
    at: Instant
    author: str | None = None
    reason: str | None = None
    until: Instant | None = None

    @property
    def key(self) -> tuple[str, str]:
        """A later command about the same name and scope replaces it."""
        return self.name, self.scope

    @property
    def policy(self) -> str | None:
        """The policy that it pauses; None for a flag that policies read."""
        return self.scope.removeprefix(OF_POLICY) if self.scope.startswith(OF_POLICY) else None

    def covers(self, account: str, venue: str) -> bool:
        """Whether the account is in the flag's scope."""
        return self.scope in (PORTFOLIO, f"account/{account}", f"venue/{venue}")


class Flags(Struct, frozen=True):
    """The flags in force at one instant."""

    in_force: tuple[Flag, ...] = ()

    def is_set(self, name: str, accounts: Iterable[tuple[str, str]]) -> bool:
        """Whether a flag of this name covers every one of the accounts (name, venue).

        A flag of one account is not set for a scope that has further ones. Without any account only one of the
        portfolio is.
        """
        found = [flag for flag in self.in_force if flag.name == name]
        if not found:
            return False
        named = tuple(accounts)
        return any(
            flag.scope == PORTFOLIO or (named and all(flag.covers(*account) for account in named)) for flag in found
        )

    @property
    def pauses(self) -> dict[str, Flag]:
        """Policy → its pause."""
        return {policy: flag for flag in self.in_force if (policy := flag.policy) is not None}

    @property
    def read(self) -> tuple[Flag, ...]:
        """The flags that policies read: all but pauses."""
        return tuple(flag for flag in self.in_force if flag.policy is None)

    def without_expired(self, now: datetime) -> tuple[Flags, tuple[Flag, ...]]:
        """The flags that are in force at `now`, and those that have expired: a flag is not set at its end any more."""
        expired = tuple(flag for flag in self.in_force if flag.until is not None and flag.until <= now)
        if not expired:
            return self, ()
        return Flags(tuple(flag for flag in self.in_force if flag not in expired)), expired

    def after(self, event: Event) -> Flags:
        """The flags after a command of kind `flag`, `pause` or `resume`.

        A `flag` that clears without a scope clears the name in every scope.
        """
        is_pause = event.kind != "flag"
        name = PAUSE if is_pause else event.flag
        if name is None or (event.scope or PORTFOLIO).startswith(OF_POLICY) != is_pause:
            return self
        if not event.is_set and event.kind != "pause":
            kept = (
                it
                for it in self.in_force
                if it.name != name or (it.policy is not None) != is_pause or event.scope not in (None, it.scope)
            )
            return Flags(tuple(kept))
        flag = Flag(name, event.scope or PORTFOLIO, event.at, event.author, event.reason, event.until)
        return Flags((*(it for it in self.in_force if it.key != flag.key), flag))

    def renamed(self, names: Mapping[str, str]) -> Flags:
        """The flags after policies were renamed, former name → name, all at once: their pauses move with them."""

        def moved(flag: Flag) -> Flag:
            name = names.get(flag.policy or "")
            return flag if name is None else replace(flag, scope=f"{OF_POLICY}{name}")

        return Flags(tuple(map(moved, self.in_force)))

    def after_outage(self, since: int, until: int) -> Flags:
        """The flags after a time that only a wall clock has measured (microseconds): they have as much time left."""

        def moved(flag: Flag) -> Flag:
            end = None if flag.until is None else to_micros(flag.until)
            return flag if end is None or end <= since else replace(flag, until=from_micros(end + until - since))

        return Flags(tuple(map(moved, self.in_force)))


def is_of_policy(event: Event) -> bool:
    """Whether a `pause` or a `resume` is of a policy; else it is of a scope, and a pause of it is a lock."""
    return event.kind in ("pause", "resume") and (event.lock is None and event.ids is None)


NO_FLAGS = Flags()
_ENCODER = msgjson.Encoder()
_DECODER = msgjson.Decoder(Flags)


def encode_flags(flags: Flags) -> bytes:
    """The flags as JSON, to be stored."""
    return _ENCODER.encode(flags)


def decode_flags(blob: bytes | None) -> Flags:
    """Stored flags; none if nothing is stored. DamagedStateError if they are damaged."""
    try:
        return _DECODER.decode(blob) if blob else NO_FLAGS
    except (MsgspecError, ValueError) as error:
        from killswitch.model.store import DamagedStateError  # validating policies needs no decisions

        raise DamagedStateError(f"the stored flags cannot be read ({error})") from error
