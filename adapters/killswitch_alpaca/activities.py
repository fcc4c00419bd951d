"""Alpaca's account activities as ours: trades are fills, everything else with money in it is a flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from killswitch.model.snapshot import Fill, Flow, FlowKind
from killswitch_alpaca.numbers import Row, UnreadableError, decimal, instant, needed, word
from killswitch_alpaca.positions import symbol_of

UNITS: Final[Mapping[str, FlowKind]] = {
    "CSD": "deposit", "CSW": "withdrawal", "CSR": "deposit",
    "JNL": "transfer", "JNLC": "transfer", "ACATC": "transfer", "SWP": "transfer", "CST": "transfer",
}  # fmt: skip
"""Money that is put in or taken out: no gain and no loss."""
PROFIT: Final[Mapping[str, FlowKind]] = {
    "FEE": "fee", "CFEE": "fee", "PTC": "fee", "PTR": "rebate", "DIVFEE": "fee", "MEM": "fee", "INVPNL": "interest",
}  # fmt: skip
"""What is gained or lost by anything but a trade. What is not named here is `interest`, by which dividends, interest,
taxes withheld and cash of corporate actions go: all of them are profit or loss, and none of them issues a unit."""


def read_fill(found: Row, names: Mapping[str, str]) -> Fill:
    """One FILL activity. Commissions and fees come as activities of their own, so the fill's are unknown.

    It does not say what it is of: `names` are the coins that are known, as positions write them, and their symbols.
    """
    name = word(found, "id")
    try:
        at = instant(found.get("transaction_time"))
        side = word(found, "side")
        if at is None or side not in ("buy", "sell", "sell_short"):
            raise UnreadableError(f"no time, or no side: {found.get('transaction_time')!r}, {side!r}")  # noqa: TRY301
        return Fill(
            id=name,
            at=at,
            symbol=names.get(word(found, "symbol"), word(found, "symbol")),
            side="buy" if side == "buy" else "sell",
            amount=needed(found, "qty"),
            price=needed(found, "price"),
            order=found.get("order_id"),
        )
    except UnreadableError as error:
        raise UnreadableError(f"activity {name}: {error}") from None


def read_flow(found: Row, currency: str, first_seen: datetime) -> Flow | None:
    """One activity that is no trade; None for one that moved no money, or was taken back before it did.

    Most of them have a date and no time: they are dated with `first_seen`, when they first were in an answer.
    """
    name = word(found, "id")
    try:
        if found.get("status") == "canceled":
            return None
        kind = word(found, "activity_type")
        amount, paid_in = decimal(found.get("net_amount")) or Decimal(0), currency
        if not amount and kind == "CFEE":
            # A fee on coins is taken in coins.
            amount, paid_in = decimal(found.get("qty")) or Decimal(0), word(found, "symbol").partition("/")[0]
            paid_in = symbol_of(paid_in, "crypto").partition("/")[0]
        if not amount:
            return None
        told = UNITS.get(kind) or PROFIT.get(kind) or "interest"
        return Flow(name, instant(found.get("created_at")) or first_seen, told, amount, paid_in)
    except UnreadableError as error:
        raise UnreadableError(f"activity {name}: {error}") from None


KEPT = 20_000
"""Ids that are remembered. What is older has long left the pages that are read."""


class Known:
    """Which activities were told already. The first answer only says what had happened before we looked."""

    def __init__(self) -> None:
        self._told: dict[str, None] | None = None

    def new(self, answer: Sequence[Row]) -> list[Row]:
        """Those of the answer that are to be told, in its order. They stay new until they are learnt."""
        if self._told is None:
            return []
        return [each for each in answer if word(each, "id") not in self._told]

    def learn(self, answer: Sequence[Row]) -> None:
        """They were told."""
        told = {} if self._told is None else self._told
        for each in answer:
            name = word(each, "id")
            told.pop(name, None)  # what was seen last is kept longest
            told[name] = None
        for name in list(told)[:-KEPT]:
            del told[name]
        self._told = told

    def meets(self, answer: Sequence[Row]) -> bool:
        """Whether one of them is known already, so that what is older is, too."""
        return self._told is not None and any(word(each, "id") in self._told for each in answer)

    @property
    def begun(self) -> bool:
        """Whether there was an answer yet."""
        return self._told is not None
