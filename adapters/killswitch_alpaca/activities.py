"""Alpaca's account activities as ours: trades are fills, everything else with money in it is a flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final

from killswitch.model.snapshot import Fill, Flow, FlowKind
from killswitch_alpaca.numbers import Row, UnreadableError, decimal, instant, more_than_zero, naming, text, word
from killswitch_alpaca.orders import read_side
from killswitch_alpaca.positions import symbol_of

KINDS: Final[Mapping[str, FlowKind]] = {
    # Money that is put in or taken out: neither profit nor loss.
    "CSD": "deposit", "CSW": "withdrawal", "CSR": "deposit",
    "JNL": "transfer", "JNLC": "transfer", "ACATC": "transfer", "SWP": "transfer", "CST": "transfer",
    # Profit or loss of anything but a trade.
    "FEE": "fee", "CFEE": "fee", "PTC": "fee", "PTR": "rebate", "DIVFEE": "fee", "MEM": "fee",
}  # fmt: skip
"""Kinds of activities that are not `interest`, under which dividends, interest, withheld taxes and the cash of
corporate actions are counted: all of these are profit or loss, and none issues a unit."""


def read_fill(found: Row, names: Mapping[str, str]) -> Fill:
    """One FILL activity. Commissions and fees come as activities of their own, so the fill's are unknown.

    It does not say what it is of: `names` are the coins that are known, as positions write them, and their symbols.
    """
    name = word(found, "id")
    with naming(f"activity {name}"):
        at = instant(word(found, "transaction_time"))
        assert at is not None  # of a text that is not empty
        symbol = word(found, "symbol")
        return Fill(
            id=name,
            at=at,
            symbol=names.get(symbol, symbol),
            side=read_side(found),
            amount=more_than_zero(found, "qty"),
            price=more_than_zero(found, "price"),
            order=text(found, "order_id"),
        )


def read_flow(found: Row, currency: str, first_seen: datetime) -> Flow | None:
    """One activity that is no trade; None for one that moved no money, or was taken back before it did.

    Most of them have a date and no time: they are dated with `first_seen`, when they first were in an answer.
    """
    name = word(found, "id")
    with naming(f"activity {name}"):
        if found.get("status") == "canceled":
            return None
        kind = word(found, "activity_type")
        if found.get("net_amount") in (None, "") and found.get("qty") in (None, ""):
            raise UnreadableError("it says neither money nor a quantity")
        amount, paid_in = decimal(found.get("net_amount")) or Decimal(0), currency
        if not amount and kind == "CFEE":
            # A fee on coins is taken in coins.
            amount, paid_in = decimal(found.get("qty")) or Decimal(0), word(found, "symbol").partition("/")[0]
            paid_in = symbol_of(paid_in, "crypto").partition("/")[0]
        if not amount:
            return None
        return Flow(name, instant(found.get("created_at")) or first_seen, KINDS.get(kind, "interest"), amount, paid_in)


KEPT = 20_000
"""Ids that are remembered. What is older has long left the pages that are read."""
OVERLAP: Final = timedelta(hours=1)
"""So long before the last run's end rows are given again: it may not have read them. Who takes them knows their ids."""
LATE: Final = timedelta(days=2, hours=5)
"""From the beginning of a row's date, UTC, to the end of the day after it in New York: until then it may appear."""


def _once(answer: Sequence[Row]) -> list[Row]:
    found: dict[str, Row] = {}
    for each in answer:
        if found.setdefault(name := word(each, "id"), each) != each:
            raise UnreadableError(f"activity {name} is there twice, and the two differ")
    return list(found.values())


class Known:
    """Which activities were given already. Of the first answer those are new that the run before could not know.

    Where there was no run before, what is in the first answer had happened before anyone looked. A row with a date and
    no time may be one that a later run on the same day cannot tell from a new one: it is given, dated by the beginning
    of its day, so that its id is known from then on.
    """

    def __init__(self) -> None:
        self._given: dict[str, None] | None = None
        self._since: datetime | None = None

    def remember(self, since: datetime | None) -> None:
        """Rows from `since` on, when the run before knew the account last, are new; None where that is not known."""
        self._since = None if since is None else since - OVERLAP

    def new(self, answer: Sequence[Row]) -> list[Row]:
        """Those of the answer that are to be given, in its order. They stay new until they are learnt.

        UnreadableError where one of them is there twice, and the two differ.
        """
        answer = _once(answer)
        if self._given is not None:
            return [each for each in answer if word(each, "id") not in self._given]
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

    def learn(self, answer: Sequence[Row]) -> None:
        """They were given."""
        given = {} if self._given is None else self._given
        for each in answer:
            name = word(each, "id")
            given.pop(name, None)  # what was seen last is kept longest
            given[name] = None
        for name in list(given)[:-KEPT]:
            del given[name]
        self._given = given

    def goes_beyond(self, page: Sequence[Row]) -> bool:
        """Whether nothing is new that is older than a page, newest row first."""
        if self._given is not None:
            return any(word(each, "id") in self._given for each in page)
        return self._since is None or any(self._is_old(each) for each in page[-1:])

    @property
    def begun(self) -> bool:
        """Whether there was an answer yet."""
        return self._given is not None

    def _is_old(self, row: Row) -> bool:
        """Whether the run before has known it, or could have: it had happened, and would have been in its answers."""
        day = _day(row)
        at = _time(row) if day is None else day + LATE
        if at is None:
            raise UnreadableError(f"activity {row.get('id')}: it has neither a time nor a date")
        return self._since is not None and at < self._since


def _time(row: Row) -> datetime | None:
    """When it happened; None where it does not say, or what it says is no time."""
    try:
        return instant(row.get("transaction_time")) or instant(row.get("created_at"))
    except UnreadableError:
        return None


def _day(row: Row) -> datetime | None:
    """The beginning, in UTC, of the day of a row that has a date and no time; None for any other."""
    if row.get("transaction_time") or row.get("created_at"):
        return None
    try:
        day = date.fromisoformat(str(row.get("date")))
    except ValueError:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
