"""The positions of one account and their measures, in the account's currency.

Every measure is computed when it is first read, and once for all policies, scopes and signals that read it. The same
object serves later snapshots for as long as they report the same positions and prices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import repeat
from operator import attrgetter, mul
from typing import TYPE_CHECKING, cast

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.computed_once import computed_once
from killswitch.model.magnitude import LEAST, MOST, are_sane, sane, sound_positions
from killswitch.model.snapshot import AccountSnapshot, Instrument, Position, Side
from killswitch.valuation.position_measures import (
    ZERO,
    Instruments,
    PnlKey,
    base_quantity,
    entry_value,
    merge_rows,
    notional,
    settlement,
    unrealized,
)
from killswitch.valuation.trust import are_open

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Booleans = NDArray[np.bool_]
    Floats = NDArray[np.float64]

SizeKey = tuple[str, Side]
"""(symbol, side): the identity of a position in its account."""


class BookExposure(Struct, frozen=True):
    """The size of a book: the sum of the absolute notionals, long minus short, and the largest notional."""

    gross: Decimal = ZERO
    net: Decimal = ZERO
    largest: Decimal = ZERO

    def times(self, rate: Decimal) -> BookExposure:
        """The exposure in another currency."""
        return BookExposure(self.gross * rate, self.net * rate, self.largest * rate)


class PositionSizes:
    """Symbol, side and contracts of every reported row; the same object for as long as nothing is traded."""

    def __init__(self, account: str, positions: Sequence[Position]) -> None:
        self.symbols = [row.symbol for row in positions]
        self.sides = [row.side for row in positions]
        self.rows = [row.contracts for row in positions]
        self.are_open = are_open(self.rows)
        """Whether there are rows, all of them open and of a plausible size."""
        self._account = account
        self._at_entries: tuple[Sequence[Decimal | None], str, Floats] | None = None

    def are_of(self, positions: Sequence[Position]) -> bool:
        """Whether these are the sizes of `positions`."""
        return (
            _are_equal([row.contracts for row in positions], self.rows)
            and [row.symbol for row in positions] == self.symbols
            and [row.side for row in positions] == self.sides
        )

    @computed_once
    def are_single(self) -> bool:
        """Whether no symbol and side has two rows (of several strategies)."""
        return len(set(self.keys)) == len(self.keys)

    @computed_once
    def are_plain(self) -> bool:
        """Whether every row is an open position of its own."""
        return self.are_open and self.are_single

    @computed_once
    def keys(self) -> list[PnlKey]:
        """The key of every row, in order."""
        return [*zip(repeat(self._account), self.symbols, self.sides, strict=False)]

    @computed_once
    def signs(self) -> Floats:
        """+1 for each long row, −1 for each short one."""
        return _float_column([1 if side == "long" else -1 for side in self.sides])

    def at_entries(self, entries: Sequence[Decimal | None], currency: str) -> Floats | None:
        """The entry values that are remembered for these entry prices in this currency; None without any."""
        known = self._at_entries
        return known[2] if known is not None and known[1] == currency and known[0] == entries else None

    def remember(self, entries: Sequence[Decimal | None], currency: str, values: Floats) -> Floats:
        """Remember entry values that depend on nothing else: the rules stay the same while this object is used."""
        self._at_entries = entries, currency, values
        return values

    @computed_once
    def rule_keys(self) -> list[tuple[str, str]]:
        """The key of the rules of every row, in order."""
        return [*zip(repeat(self._account), self.symbols, strict=False)]

    @computed_once
    def settled_in(self) -> frozenset[str]:
        """The coins in which the rows are settled."""
        return frozenset(map(settlement, self.symbols))

    @computed_once
    def _members(self) -> dict[tuple[str, ...], Booleans]:
        return {}

    def members(self, symbols: tuple[str, ...]) -> Booleans:
        """Which rows are in one of these symbols."""
        import numpy as np

        found = self._members.get(symbols)
        if found is None:
            wanted = frozenset(symbols)
            found = self._members[symbols] = np.array([symbol in wanted for symbol in self.symbols], dtype=np.bool_)
        return found

    @computed_once
    def places(self) -> Mapping[str, tuple[int, ...]]:
        """Symbol → the indexes of its rows."""
        found: dict[str, tuple[int, ...]] = {}
        for index, symbol in enumerate(self.symbols):
            found[symbol] = (*found.get(symbol, ()), index)
        return found

    @computed_once
    def contracts(self) -> Mapping[SizeKey, Decimal]:
        """Symbol and side → contracts of its rows together, without rows of zero contracts."""
        found: dict[SizeKey, Decimal] = {}
        for symbol, side, contracts in zip(self.symbols, self.sides, self.rows, strict=True):
            if contracts:
                found[symbol, side] = found.get((symbol, side), ZERO) + contracts
        return found


class HeldPositions:
    """The positions of one account in one snapshot; none if the snapshot does not report them."""

    def __init__(self, account: AccountSnapshot, rules: Instruments, before: HeldPositions | None) -> None:
        """`before`: the positions of an earlier snapshot of the account, whose sizes are used if they are the same."""
        self.account = account
        self.name = account.account
        self.reported = account.positions or ()
        self.rules = rules
        sizes = None if before is None or not before.sizes.are_of(self.reported) else before.sizes
        self.sizes: PositionSizes = sizes or PositionSizes(self.name, self.reported)

    @classmethod
    def of(cls, account: AccountSnapshot, rules: Instruments, before: HeldPositions | None) -> HeldPositions:
        """The positions of `account`: `before` itself if it has the same ones at the same prices.

        `rules` are those of `before`.
        """
        return before if before is not None and before._serves(account) else cls(account, rules, before)

    def _serves(self, account: AccountSnapshot) -> bool:
        """Whether the account has these positions, and the same prices of coins in which they may be settled."""
        own = self.account
        if account.positions is not own.positions and not _are_equal(account.positions, own.positions):
            return False
        same = (account.currency, account.market, account.adl_ranks) == (own.currency, own.market, own.adl_ranks)
        return same and _are_equal(account.balances, own.balances) and _are_equal(account.rates, own.rates)

    @computed_once
    def entries(self) -> list[Decimal | None]:
        """The entry price of every reported row, in order."""
        return [row.entry_price for row in self.reported]

    @computed_once
    def sound(self) -> tuple[Position, ...]:
        """The reported rows with every insane number unknown."""
        return sound_positions(self.reported) or ()

    @computed_once
    def merged(self) -> tuple[Position, ...]:
        """The open positions with every insane number unknown; rows of one symbol and side are one position."""
        if self.sizes.are_plain:
            return self.sound
        found: dict[SizeKey, Position] = {}
        for row in self.sound:
            if sane(row.contracts) and row.contracts > ZERO:
                found[row.key] = merge_rows(found[row.key], row) if row.key in found else row
        return tuple(found.values())

    def places_of(self, symbol: str) -> Sequence[int]:
        """The indexes of the positions of this symbol in `merged`."""
        if self.sizes.are_plain:
            return self.sizes.places.get(symbol, ())
        return [index for index, position in enumerate(self.merged) if position.symbol == symbol]

    def only_row_of(self, symbol: str) -> Position | None:
        """The reported position of this symbol; None if there is none or another one, or a row is no open position."""
        places = self.sizes.places.get(symbol, ()) if self.sizes.are_plain else ()
        return self.reported[places[0]] if len(places) == 1 else None

    def rows_of(self, symbol: str) -> Sequence[Position]:
        """The positions of this symbol in `merged`, without checking all others."""
        if self.sizes.are_plain and "sound" not in self.__dict__:
            return sound_positions(tuple([self.reported[place] for place in self.places_of(symbol)])) or ()
        return [self.merged[place] for place in self.places_of(symbol)]

    # Unrealised P&L

    @computed_once
    def pnl(self) -> dict[PnlKey, Decimal] | None:
        """The unrealised P&L of every position; None if that of one is unknown. It must not be changed."""
        values = [row.unrealized_pnl for row in self.reported]
        sizes = self.sizes
        if sizes.are_single and are_sane(values):
            return dict(zip(sizes.keys, values, strict=True))
        found: dict[PnlKey, Decimal] = {}
        for key, row, value in zip(sizes.keys, self.reported, values, strict=True):
            known = value if value is not None and sane(value) else self._computed_pnl(row)
            if known is not None:
                found[key] = found[key] + known if key in found else known
            elif row.contracts:
                return None
        return found

    def _computed_pnl(self, row: Position) -> Decimal | None:
        """The P&L computed from entry and mark, if the venue reports none or no valid number."""
        prices = (row.contracts, row.entry_price, row.mark_price)
        if any(price is not None and not sane(price) for price in prices):
            return None
        return unrealized(replace(row, unrealized_pnl=None), self.account, self._instrument(row))

    @computed_once
    def unrealised(self) -> Decimal | None:
        """The sum of the positions' P&L; None if that of one is unknown."""
        return None if self.pnl is None else sum(self.pnl.values(), ZERO)

    # Notionals

    @computed_once
    def notionals(self) -> list[Decimal | None]:
        """The absolute notional of every merged position; None where it is unknown."""
        if self.sizes.are_plain:
            reported = [row.notional for row in self.reported]
            if are_sane(reported):
                return [*map(abs, reported)]
        return [notional(position, self.account, self._instrument(position)) for position in self.merged]

    @computed_once
    def exposure(self) -> BookExposure | None:
        """Gross, net and largest notional; None if a notional is unknown."""
        known = [value for value in self.notionals if value is not None]
        if len(known) < len(self.notionals):
            return None
        signed = [it if side == "long" else -it for side, it in zip(self.sides, known, strict=True)]
        return BookExposure(sum(known, ZERO), sum(signed, ZERO), max(known, default=ZERO))

    @property
    def symbols(self) -> Sequence[str]:
        """The symbol of every merged position."""
        if self.sizes.are_plain:
            return self.sizes.symbols
        return [position.symbol for position in self.merged]

    @property
    def sides(self) -> Sequence[Side]:
        """The side of every merged position."""
        if self.sizes.are_plain:
            return self.sizes.sides
        return [position.side for position in self.merged]

    # Columns

    @computed_once
    def _floats(self) -> dict[str, Floats]:
        return {}

    def floats(self, column: str) -> Floats:
        """One of `COLUMNS` as float64, a number for each merged position; NaN is unknown."""
        found = self._floats.get(column)
        if found is None:
            found = self._floats[column] = self._made(column)
        return found

    def _made(self, column: str) -> Floats:
        match column:
            case "spread":
                return self._spreads()
            case "mark":
                return self._prices(_MARK)
            case "entry_value":
                return self._entry_values()
            case "sign" if self.sizes.are_plain:
                return self.sizes.signs
            case "liquidation_distance":
                return _float_column(self._liquidation_distances())
            case _:
                return _float_column(self._values(column))

    def _rows_with(self, *numbers: Callable[[Position], Decimal | None]) -> Sequence[Position]:
        """The merged positions; as reported, which is faster, where all of them have these numbers, and sane ones."""
        if self.sizes.are_plain and all(are_sane([read(row) for row in self.reported]) for read in numbers):
            return self.reported
        return self.merged

    def _spreads(self) -> Floats:
        """(ask − bid) ÷ their middle of each merged position, at least 0."""
        import numpy as np

        bid, ask = self._prices(_BID), self._prices(_ASK)
        found: Floats = np.maximum(ask - bid, 0.0) * 2.0 / (ask + bid)  # keeps NaN
        found.setflags(write=False)
        return found

    def _prices(self, read: Callable[[Position], Decimal | None]) -> Floats:
        """A price of each merged position; NaN for one that is missing, not above zero, or insane."""
        import numpy as np

        rows = self.reported if self.sizes.are_plain else self.merged
        try:
            prices = np.array([*map(float, cast("Iterable[Decimal]", map(read, rows)))])
        except (TypeError, ValueError):  # one is missing, or a signalling NaN, which is no float
            prices = np.array([*map(read, self.merged)], dtype=np.float64)
        if not (np.minimum.reduce(prices, initial=_LEAST) >= _LEAST and np.maximum.reduce(prices, initial=0.0) < _MOST):
            prices[~((prices >= _LEAST) & (prices < _MOST))] = np.nan
        prices.setflags(write=False)
        return prices

    def _liquidation_distances(self) -> Sequence[float]:
        """The distance of each merged position, as `liquidation_distance` computes it, in float64."""
        import numpy as np

        rows = self._rows_with(lambda row: row.mark_price, lambda row: row.liquidation_price)
        marks = np.array([_float(row.mark_price) for row in rows])
        prices = np.array([_float(row.liquidation_price) for row in rows])
        signs = self.floats("sign")
        with np.errstate(divide="ignore", invalid="ignore"):
            away = signs * (marks - prices) / marks
        away[~(marks > 0.0) | ((signs < 0.0) & (prices <= 0.0))] = np.nan  # no short has such a liquidation price
        found: list[float] = np.maximum(away, 0.0).tolist()  # keeps NaN
        return found

    def members(self, symbols: tuple[str, ...]) -> Booleans:
        """Which merged positions are in one of these symbols; the same array for as long as nothing is traded."""
        import numpy as np

        if self.sizes.are_plain:
            return self.sizes.members(symbols)
        return np.array([position.symbol in symbols for position in self.merged], dtype=np.bool_)

    def _entry_values(self) -> Floats:
        """The notional of each merged position at its entry price, by `entry_value`, or faster where all are linear."""
        sizes, entries, currency = self.sizes, self.entries, self.account.currency
        known = sizes.at_entries(entries, currency)
        if known is not None:
            return known
        if sizes.are_plain and sizes.settled_in <= {"", currency} and are_sane(entries) and min(entries) > ZERO:
            rules = [*map(self.rules.get, sizes.rule_keys)]
            values = [None if rule is None or rule.inverse else rule.contract_size for rule in rules]
            if None not in values:
                faces = map(mul, sizes.rows, cast(Sequence[Decimal], values))
                return sizes.remember(entries, currency, _float_column([*map(mul, faces, entries)]))
        return _float_column([entry_value(it, self.account, self._instrument(it)) for it in self.merged])

    def _values(self, column: str) -> Sequence[Decimal | int | float | None]:
        found: Sequence[Decimal | int | float | None]
        match column:
            case "sign":
                found = [1 if side == "long" else -1 for side in self.sides]
            case "contracts":
                found = self.sizes.rows if self.sizes.are_plain else [position.contracts for position in self.merged]
            case "notional":
                found = self.notionals
            case "unrealised" if self.sizes.are_plain and self.pnl is not None:
                found = [*self.pnl.values()]
            case "unrealised" | "base":
                measure = {"unrealised": unrealized, "base": base_quantity}[column]
                found = [measure(it, self.account, self._instrument(it)) for it in self.merged]
            case "margin":
                found = [position.margin for position in self.merged]
            case "adl_rank":
                found = [_rank_share(it.adl_rank, self.account.adl_ranks) for it in self.merged]
            case _:
                raise LookupError(f"there is no column {column}")
        return found

    def _instrument(self, position: Position) -> Instrument | None:
        return self.rules.get((self.name, position.symbol))


_BID, _ASK, _MARK = attrgetter("bid"), attrgetter("ask"), attrgetter("mark_price")
_LEAST, _MOST = float(LEAST), float(MOST)


def _float(value: Decimal | None) -> float:
    return math.nan if value is None else float(value)


def _rank_share(rank: int | None, most: int | None) -> float | None:
    """A rank as a share of the venue's highest, 0…1; None if one of the two is unknown."""
    return None if rank is None or most is None or rank < 0 or most < 1 else min(1.0, rank / most)


def _float_column(values: Sequence[Decimal | int | float | None]) -> Floats:
    import numpy as np

    try:
        column = np.array([*map(float, cast("Sequence[Decimal]", values))], dtype=np.float64)
    except TypeError:  # one is unknown
        column = np.array([math.nan if it is None else float(it) for it in values], dtype=np.float64)
    column.setflags(write=False)  # it is shared by everything that reads it
    return column


def _are_equal(one: object, other: object) -> bool:
    """Whether two parts of snapshots are equal; a signalling NaN equals nothing."""
    try:
        return one == other
    except InvalidOperation:
        return False
