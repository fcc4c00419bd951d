"""What a dialect does to move money between accounts of one owner at its venue: who reaches whom, and the requests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

from killswitch.model.parsing import UnreadableError, decimal
from killswitch.model.venue import AccountSpec, SentTransfer, TransferFate
from killswitch_ccxt.dialect.core import DialectCore

FATES: Final[Mapping[str, TransferFate]] = {
    "CONFIRMED": "moved", "SUCCESS": "moved", "FAILED": "failed", "PENDING": "open", "STATUS_UNKNOWN": "open",
}  # fmt: skip
"""The state of a transfer, as venues write it."""


class TransferCalls(DialectCore, ABC):
    """Transfers between the accounts of one owner, mixed into the dialects of venues that have them.

    A venue that knows no ids of ours must be asked with care: its list is searched for the amount, and what this
    process has had an answer for is another transfer.
    """

    @property
    @abstractmethod
    def transfer_place(self) -> tuple[str, str] | None:
        """What all accounts that reach each other share, and the name of this one; None where it reaches none."""

    @abstractmethod
    async def transfer(self, to: str, amount: Decimal, transfer: str) -> None:
        """Move an amount, once. OrderRejectedError: nothing was moved."""

    @abstractmethod
    async def find_transfer(self, sent: SentTransfer) -> TransferFate:
        """What the venue's list states of a transfer of this account."""

    async def check_owner(self) -> None:
        """Ask the venue whether the account is the declared one. OrderRejectedError if not."""


def place_of_key(spec: AccountSpec, venue: str) -> str | None:
    """What the wallets of one API key share, without disclosing it; None without a key.

    Two keys of one owner cannot be recognised as such without a request, so that both accounts must name the same key.
    """
    key = spec.credentials.get("key")
    return None if not key else f"{venue} {sha256(str(key).encode()).hexdigest()[:16]}"


def fate_among(rows: Iterable[Mapping[str, Any]], amount: Decimal, names: tuple[str, str, str]) -> TransferFate:
    """The fate of a transfer by rows that may be it: those of its amount. `open` where there is none.

    `names`: the fields of the amount, of the state, and of the id, which a row must have. UnreadableError for a state
    that is not known: it must not pass for a failure.
    """
    states = set()
    for row in rows:
        if decimal(row.get(names[0])) == amount:
            state = str(row.get(names[1]))
            if state not in FATES or row.get(names[2]) in (None, ""):
                raise UnreadableError(f"transfer {row.get(names[2])} has the unknown state {state!r}")
            states.add(FATES[state])
    return "moved" if "moved" in states else "failed" if states == {"failed"} else "open"


def without(rows: Iterable[Mapping[str, Any]], field: str, known: Collection[str]) -> list[Mapping[str, Any]]:
    """The rows whose field is none of the known ids."""
    return [row for row in rows if str(row.get(field)) not in known]
