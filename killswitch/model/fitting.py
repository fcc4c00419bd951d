"""Validation of Account documents against their venues, without secrets or connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol

VENUES: Final = "killswitch.venues"
"""The entry-point group of venue families. A family has the name of its adapter."""


class WrittenAccount(NamedTuple):
    """The parts of an Account document that select its venue."""

    exchange: str | None
    market: str
    currency: str
    environment: Literal["production", "sandbox", "demo"]
    credentials: tuple[str, ...]
    """Names of the credentials, in the order of the document."""


class Misfit(NamedTuple):
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
