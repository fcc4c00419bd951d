"""Validation of Account documents against their venues, and of their `options` by adapters, without connections.

Messages name an option and never show its value: somebody may have written a secret there by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from datetime import datetime

    from killswitch.model.venue import AccountSpec

VENUES: Final = "killswitch.venues"
"""The entry-point group of venue families. A family has the name of its adapter."""


class WrittenAccount(Struct, frozen=True):
    """The parts of an Account document that select its venue."""

    exchange: str | None
    market: str
    currency: str
    environment: Literal["production", "sandbox", "demo"]
    credentials: tuple[str, ...]
    """Names of the credentials, in the order of the document."""


class Misfit(Struct, frozen=True):
    """A part of an Account document that the venue does not support, and the fix."""

    key: tuple[str, ...]
    """The path below the document's `spec`; a missing key is reported at its container."""
    message: str
    fix: str
    at_key: bool = False
    """Whether the key itself is wrong, not its value."""


class FittingFamily(Protocol):
    """A `VenueFamily` that validates Account documents.

    `ksctl validate` calls it at every save, so it must not import slow modules.
    """

    def misfits(self, account: WrittenAccount) -> Sequence[Misfit]:
        """Everything for which the adapter would reject the document; empty if that is unknown."""

    def not_installed(self) -> Misfit | None:
        """The misfit for a missing library of the adapter, with installation instructions; None if it is installed.

        A family may lack this method.
        """

    def keeps_apart(self, exchange: str | None) -> bool:
        """Whether one key gives access to a separate book for each settlement currency, instead of one for all."""


def missing_credentials(venue: str, names: Sequence[str], missing: Sequence[str]) -> Misfit:
    """The misfit for `missing` ones of the credentials that the venue needs."""
    each = ", ".join(f"`{name}: 'env:NAME'`" for name in missing)
    return Misfit(
        ("credentials",),
        f"credentials of {venue} are {', '.join(names)}; missing: {', '.join(missing)}",
        f"add {each}, where NAME is the variable with the secret",
    )


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The question for the nearest known name, to be appended to a message; empty where none is near."""
    from difflib import get_close_matches  # only needed for mistakes

    close = get_close_matches(name, known, 1)
    return f", did you mean {close[0]}?" if close else ""


def check_option_names(spec: AccountSpec, venue: str, known: Sequence[str]) -> None:
    """ValueError for an option that is not `known`: it would be ignored. Every adapter knows `clock`."""
    for name in spec.options:
        if name not in known and name != "clock":
            raise ValueError(f"{venue} has no option {name}{did_you_mean(name, known)}; it has {', '.join(known)}")


_CREDENTIAL: Final = re.compile(
    r"(?i)secret|passw|passphrase|private_?-?key|api_?-?key|wallet_?-?address|^(login|uid|token|key|twofa)$"
)
"""Names of credentials, also those of ccxt."""


def positive_option(spec: AccountSpec, name: str, default: Decimal | int, unit: str = "a number") -> Decimal:
    """The number of an option; ValueError where it is no number above zero."""
    from killswitch.model.magnitude import readable_number  # imports the records of snapshots

    option = spec.options.get(name, default)
    found = None if isinstance(option, bool) else readable_number(str(option))
    if found is None or found <= 0:
        raise ValueError(f"option {name} of account {spec.account} must be {unit} above zero")
    return found


def clock_option(spec: AccountSpec) -> Callable[[], datetime] | None:
    """The time by the option `clock`, with which a program that creates the adapter itself sets its time."""
    now = getattr(spec.options.get("clock"), "now", None)
    return now if callable(now) else None


def text_option(spec: AccountSpec, name: str) -> str | None:
    """The text of an option, None without one; ValueError for anything else."""
    option = spec.options.get(name)
    if option is None or (isinstance(option, str) and option):
        return option
    raise ValueError(f"option {name} of account {spec.account} must be a text")


def check_no_credentials(spec: AccountSpec, name: str) -> None:
    """ValueError where the option `name`, which the adapter passes on unread, holds a credential at any depth."""
    for path in _paths(spec.options.get(name), (name,)):
        if _CREDENTIAL.search(path[-1]):
            raise ValueError(
                f"options of account {spec.account}: {'.'.join(path)} is a credential; write it under `credentials`, "
                "as env:NAME or file:PATH"
            )


def _paths(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield (*path, str(name))
            yield from _paths(inner, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _paths(inner, path)
