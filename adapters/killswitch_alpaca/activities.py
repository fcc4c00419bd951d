"""Alpaca's account activities as fills (trades) and flows (everything else that moves money)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final

from killswitch.model.parsing import (
    Row,
    UnreadableError,
    about_row,
    above_zero,
    decimal,
    optional_text,
    required_number,
    required_text,
    written_instant,
    written_time_of,
)
from killswitch.model.snapshot import CorporateAction, Fill, Flow, FlowKind
from killswitch_alpaca.orders import read_side
from killswitch_alpaca.positions import symbol_of

KINDS: Final[Mapping[str, FlowKind]] = {
    # Deposits and withdrawals: neither profit nor loss.
    "CSD": "deposit", "CSW": "withdrawal", "CSR": "deposit",
    "JNL": "transfer", "JNLC": "transfer", "ACATC": "transfer", "SWP": "transfer", "CST": "transfer",
    # Profit or loss of anything but a trade.
    "FEE": "fee", "CFEE": "fee", "PTC": "fee", "PTR": "rebate", "DIVFEE": "fee", "MEM": "fee",
}  # fmt: skip
"""Kinds of activities that are not `interest`, under which dividends, interest, withheld taxes and the cash of
corporate actions are counted: all of these are profit or loss, and none issues a unit."""


def read_fill(found: Row, names: Mapping[str, str]) -> Fill:
    """Read one FILL activity. Its fee is unknown: commissions and fees are activities of their own.

    An activity names no asset class: `names` maps the names of known coins, as positions write them, to their symbols.
    """
    name = required_text(found.get("id"), "id")
    with about_row(f"activity {name}"):
        symbol = required_text(found.get("symbol"), "symbol")
        return Fill(
            id=name,
            at=written_time_of(found.get("transaction_time"), "transaction_time"),
            symbol=names.get(symbol, symbol),
            side=read_side(found),
            amount=above_zero(found.get("qty"), "qty"),
            price=above_zero(found.get("price"), "price"),
            order=optional_text(found.get("order_id")),
        )


def read_flow(found: Row, currency: str, first_seen: datetime) -> Flow | None:
    """Read one activity that is not a trade; None for one that moved no money, or was cancelled before it did.

    Most of them have a date but no time: they are dated `first_seen`, when they first appeared in an answer.
    """
    name = required_text(found.get("id"), "id")
    with about_row(f"activity {name}"):
        if found.get("status") == "canceled":
            return None
        kind = required_text(found.get("activity_type"), "activity_type")
        if found.get("net_amount") in (None, "") and found.get("qty") in (None, ""):
            raise UnreadableError("it has neither net_amount nor qty")
        amount, paid_in = decimal(found.get("net_amount")) or Decimal(0), currency
        if not amount and kind == "CFEE":
            # Alpaca charges fees on coins in coins.
            amount, coin = decimal(found.get("qty")) or Decimal(0), required_text(found.get("symbol"), "symbol")
            paid_in = symbol_of(coin.partition("/")[0], "crypto").partition("/")[0]
        if not amount:
            return None
        at = written_instant(found.get("created_at")) or first_seen
        return Flow(name, at, KINDS.get(kind, "interest"), amount, paid_in)


SPLITS: Final = frozenset({"SPLIT", "SSP"})
"""Kinds of activities of a split."""


def read_splits(rows: Sequence[Row], first_seen: datetime) -> list[CorporateAction]:
    """The splits among activities that are not trades.

    Alpaca books one as two rows of the symbol and the day: the old shares leave, and the new ones arrive. Of a single
    row, or of more than two, the ratio is unknown.
    """
    found: dict[tuple[str, str], list[Row]] = {}
    for each in rows:
        if each.get("activity_type") in SPLITS and each.get("status") != "canceled":
            name = required_text(each.get("id"), "id")
            with about_row(f"activity {name}"):
                symbol = required_text(each.get("symbol"), "symbol")
            found.setdefault((symbol, str(each.get("date"))), []).append(each)
    return [_split(symbol, legs, first_seen) for (symbol, _), legs in found.items()]


def _split(symbol: str, legs: Sequence[Row], first_seen: datetime) -> CorporateAction:
    first = min(legs, key=lambda each: str(each["id"]))
    with about_row(f"activity {first['id']}"):
        at = written_instant(first.get("created_at")) or first_seen
        sizes = {_is_removal(each): abs(required_number(each.get("qty"), "qty")) for each in legs}
    old, new = sizes.get(True), sizes.get(False)
    ratio = new / old if len(legs) == 2 and old and new else None
    return CorporateAction(str(first["id"]), at, symbol, ratio)


def _is_removal(leg: Row) -> bool:
    """Whether the row takes the old shares away: by its description, which holds for shorts too, else by its sign."""
    word = str(leg.get("description") or "").partition(",")[0].strip().upper()
    return word == "REMOVE" if word in ("REMOVE", "ADD") else required_number(leg.get("qty"), "qty") < 0


KEPT = 20_000
"""Activity ids that are remembered. Older ones have left the pages that are read."""
OVERLAP: Final = timedelta(hours=1)
"""Time before the end of the last run for which rows are returned again: that run may not have read them. The
receiver recognises their ids."""
LATE: Final = timedelta(days=2, hours=5)
"""Time from the beginning of a row's date (UTC) to the end of the next day in New York, by which the row has
appeared."""


def _once(answer: Sequence[Row]) -> list[Row]:
    found: dict[str, Row] = {}
    for each in answer:
        if found.setdefault(name := required_text(each.get("id"), "id"), each) != each:
            raise UnreadableError(f"activity {name} appears twice, with different content")
    return list(found.values())


class KnownActivities:
    """The activities that were returned before. Of the first answer, those are new that the previous run could not
    know.

    Without a previous run, everything in the first answer happened before monitoring began. A row with a date but no
    time may look new again to a later run on the same day: it is returned, dated by the beginning of its day, so that
    its id is known from then on.
    """

    def __init__(self) -> None:
        self._returned: dict[str, None] | None = None
        self._since: datetime | None = None
        self.unfinished: list[Row] = []
        """Rows of reads that did not reach known ones, newest first: the next read continues after them."""

    def remember(self, since: datetime | None) -> None:
        """Treat rows from `since` on, the last observation of the previous run, as new; None where that is unknown."""
        self._since = None if since is None else since - OVERLAP

    def new(self, answer: Sequence[Row]) -> list[Row]:
        """The rows of the answer to return, in its order. They stay new until `mark_returned` is called.

        Raises UnreadableError for two different rows with one id.
        """
        answer = _once(answer)
        if self._returned is not None:
            return [each for each in answer if required_text(each.get("id"), "id") not in self._returned]
        if self._since is not None:
            return [each for each in answer if not self._is_old(each)]
        for each in answer:
            self._is_old(each)  # which raises where a row is not dated at all
        days = [day for each in answer if (day := _day(each)) is not None]
        if not days:
            return []
        newest = max(days)
        return [
            {**each, "created_at": day.isoformat()}
            for each in answer
            if (day := _day(each)) is not None and newest - day <= timedelta(days=1)
        ]

    def mark_returned(self, answer: Sequence[Row]) -> None:
        """Mark the rows as returned."""
        returned = {} if self._returned is None else self._returned
        for each in answer:
            name = required_text(each.get("id"), "id")
            returned.pop(name, None)  # what was seen last is kept longest
            returned[name] = None
        for name in list(returned)[:-KEPT]:
            del returned[name]
        self._returned = returned

    def is_past(self, page: Sequence[Row]) -> bool:
        """Whether every row older than this page, which is sorted newest first, is known."""
        if self._returned is not None:
            return any(required_text(each.get("id"), "id") in self._returned for each in page)
        return self._since is None or any(self._is_old(each) for each in page[-1:])

    @property
    def has_answer(self) -> bool:
        """Whether there was an answer yet."""
        return self._returned is not None

    def _is_old(self, row: Row) -> bool:
        """Whether the previous run knew the row or could have: it had happened, and would have been in its answers."""
        day = _day(row)
        at = _time(row) if day is None else day + LATE
        if at is None:
            raise UnreadableError(f"activity {row.get('id')}: it has neither a time nor a date")
        return self._since is not None and at < self._since


def _time(row: Row) -> datetime | None:
    """When the activity happened; None where it has no valid time."""
    try:
        return written_instant(row.get("transaction_time")) or written_instant(row.get("created_at"))
    except UnreadableError:
        return None


def _day(row: Row) -> datetime | None:
    """The beginning, in UTC, of the day of a row that has a date but no time; None for any other row."""
    if row.get("transaction_time") or row.get("created_at"):
        return None
    try:
        day = date.fromisoformat(str(row.get("date")))
    except ValueError:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
