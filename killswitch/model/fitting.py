"""Whether an Account document fits its venue, told from the text: without a secret, a connection or a client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol

VENUES: Final = "killswitch.venues"
"""The entry-point group of families of venues. A family goes by the name of its adapter."""


class WrittenAccount(NamedTuple):
    """What an Account document says of the venue that it leads to."""

    exchange: str | None
    market: str
    currency: str
    environment: Literal["production", "sandbox", "demo"]
    credentials: tuple[str, ...]
    """Their names, in the order of the text."""


class Misfit(NamedTuple):
    """One thing that the venue does not have, and what it has instead."""

    key: tuple[str, ...]
    """Below the document's `spec`. One that is not written stands for what should hold it."""
    message: str
    fix: str
    at_key: bool = False
    """Whether it is the key itself that is wrong, and not its value."""


class FittingFamily(Protocol):
    """A `VenueFamily` that can tell it.

    `ksctl validate` asks at every save, so nothing that takes long may be imported for it.
    """

    def misfits(self, account: WrittenAccount) -> Sequence[Misfit]:
        """Everything for which the adapter would refuse the document; empty where that is not known."""
        ...

    def not_installed(self) -> Misfit | None:
        """That the library which the adapter works with is missing, and how to install it; None where it is there.

        A family may lack this method.
        """
        ...

    def keeps_apart(self, exchange: str | None) -> bool:
        """Whether one key leads to a book for each settlement currency there, and not to one for all of them."""
        ...
