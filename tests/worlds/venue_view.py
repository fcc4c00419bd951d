"""What a venue reports of a world, tick by tick: `killswitch.snapshot/v1`, with everything that makes it ambiguous.

A tick polls equity with its parts (one answer), positions (another moment, perhaps an older one), marks, and sometimes
the ledger. Answers may be cached, late, partial or missing; rows come late, early, twice or never. `fills_as_of` and
`flows_as_of` are the instant of the last poll of the ledger: a venue whose rows come 15 s late still answers "complete
up to now", as real ones do. Only `row_lag_s` may be more precise."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

from msgspec import Struct, field

from killswitch.model.snapshot import (
    AccountSnapshot,
    Balance,
    Event,
    Fill,
    Flow,
    Instrument,
    Mark,
    Position,
    Snapshot,
)
from tests.worlds.world import ONE, Book, Contract, FillRow, FlowRow, Picture, World, exact

START = datetime(2024, 3, 4, 12, tzinfo=UTC)
MARKS_KEPT = 300.0
HOLDS = ("spot", "equity")
"""Markets in which what is held is an asset, and no contract."""
OVERLAP = 60.0
"""Seconds of rows that a restarted reader reads again."""


def instant(t: float) -> datetime:
    """World time as the snapshots have it."""
    return START + timedelta(microseconds=round(t * 1e6))


class View(Struct):
    """How one account is polled.

    All times in seconds. `form` is `full` (equity with its parts), `coins` (each coin's equity instead of its wallet),
    `amounts` (spot: amounts and prices only) or `old` (equity and the positions' own profits, nothing else)."""

    form: str = "full"
    skew: float = 0.08
    """Positions are read so long after worth."""
    positions_lag: tuple[float, float] | None = None
    """The positions' answer is as old as a number between these."""
    positions_cached: float = 0.0
    equity_cached: float = 0.0
    cached_from: tuple[float, float] = (0.0, 1e9)
    """When caches are cold: outside of it answers are fresh."""
    old_answers: tuple[float, float] | None = None
    """(share, age): so often the answer about worth is an older one, up to `age` seconds."""
    index_cached: float = 0.0
    poll: float = 10.0
    """The ledger is read so often when nothing moved."""
    hurried: float = 3.0
    """It is read so often for 90 s after a wallet or a quantity moved (and at once when it does)."""
    silent_from: float = 1e9
    """From then on the ledger does not answer."""
    row_lag_s: float | None = None
    stamps: bool = True
    """Whether the venue dates its answers (`wallet_as_of`, `positions_as_of`, `mark_at`, `price_at`)."""
    noise: float = 0.0
    """Equity swings by so much of itself without trades or prices."""
    noise_in_profit: bool = False
    """Unrealised profit swings with it, so that the parts still add up."""
    down: list[tuple[float, float]] = field(default_factory=list)
    positions_unknown: list[tuple[float, float]] = field(default_factory=list)
    doubled: float = 0.0
    """Share of rows that are shown twice, in different ticks, under one id."""
    complete: bool | None = None
    marks: bool = True
    entries: bool = True
    """Whether positions tell their entry prices."""
    index: bool = False
    """Whether positions tell an index price, which is never wrong."""
    omits_empty: bool = False
    """Assets of which there is nothing are left out of the balances."""
    profit_with_positions: bool = False
    """Unrealised profit comes in the answer with the positions, and is unknown where they are."""


class _Reader(Struct):
    """The state that the adapter of one account keeps between its ticks."""

    book: Book
    view: View
    rng: Random
    seen: set[str] = field(default_factory=set)
    again: list[FillRow | FlowRow] = field(default_factory=list)
    read_at: float | None = None
    moved_at: float = -1e9
    before: tuple[object, object] | None = None
    held: dict[str, float] = field(default_factory=dict)
    instruments_due: bool = True


class Look(Struct, frozen=True):
    """One tick: when it ends, and for each account the instants at which its parts are true."""

    at: float
    equity: dict[str, float]
    positions: dict[str, float]
    index: dict[str, float]


class Feed:
    """The snapshots of a world. `restarts` are the gaps in which no runner lives, `resets` those of an operator."""

    def __init__(
        self,
        world: World,
        views: dict[str, View],
        rng: Random,
        *,
        tick: float = 1.0,
        jitter: float = 0.12,
        restarts: list[tuple[float, float]] | None = None,
        resets: list[float] | None = None,
    ) -> None:
        self.world, self.views, self.rng = world, views, rng
        self.resets = sorted(resets or [])
        self.restarts = restarts or []
        self.looks = self._schedule(tick, jitter)
        wanted = {
            (t, world.books[name])
            for look in self.looks
            for part in (look.equity, look.positions)
            for name, t in part.items()
        }
        self.pictures = world.run(wanted)

    def _schedule(self, tick: float, jitter: float) -> list[Look]:
        looks = []
        count = int(self.world.seconds / tick)
        cached: dict[tuple[str, str], float] = {}
        for k in range(count):
            start = k * tick + self.rng.uniform(0.0, jitter)
            if any(begin <= start < end for begin, end in self.restarts):
                continue
            equity, positions, index = {}, {}, {}
            last = start
            for name, view in self.views.items():
                read = start + self.rng.uniform(0.01, 0.06)
                equity[name] = self._cached(cached, name, "equity", read, view.equity_cached, view)
                if view.old_answers is not None and self.rng.random() < view.old_answers[0]:
                    equity[name] = max(read - self.rng.uniform(0.5, view.old_answers[1]), 0.0)
                seen = read + view.skew * self.rng.uniform(0.3, 1.0)
                last = max(last, seen)
                if view.positions_lag is not None:
                    seen -= self.rng.uniform(*view.positions_lag)
                else:
                    seen = self._cached(cached, name, "positions", seen, view.positions_cached, view)
                positions[name] = max(seen, 0.0)
                index[name] = self._cached(cached, name, "index", read, view.index_cached, view)
            looks.append(Look(last + 0.01, equity, positions, index))
        return looks

    def _cached(
        self, cached: dict[tuple[str, str], float], name: str, part: str, now: float, age: float, view: View
    ) -> float:
        begin, end = view.cached_from
        if not age or not begin <= now < end:
            return now
        if now - cached.get((name, part), -1e9) >= age:
            cached[name, part] = now
        return cached[name, part]

    def __iter__(self) -> Iterator[tuple[float, Snapshot, bool]]:
        """(time, snapshot, whether a new runner begins with it)."""
        readers = {name: _Reader(self.world.books[name], view, self.rng) for name, view in self.views.items()}
        ends, resets = [end for _, end in self.restarts], list(self.resets)
        for look in self.looks:
            fresh = bool(ends) and look.at >= ends[0]
            if fresh:
                ends.pop(0)
                for reader in readers.values():
                    self._begin_again(reader)
            accounts = tuple(self._account(readers[name], look) for name in self.views)
            events: tuple[Event, ...] = ()
            if resets and look.at >= resets[0]:
                events = tuple(_reset(name, resets[0]) for name in self.views)
                resets.pop(0)
            snapshot = Snapshot(
                as_of=instant(look.at), accounts=accounts, format="killswitch.snapshot/v1", events=events
            )
            yield look.at, snapshot, fresh

    def _begin_again(self, reader: _Reader) -> None:
        """A new runner knows no rows; it fetches again those of the last minute before the old one's last poll."""
        since = (reader.read_at or 0.0) - OVERLAP
        rows: list[FillRow | FlowRow] = [*reader.book.fills, *reader.book.flows]
        reader.seen = {row.id for row in rows if row.at < since}
        reader.again, reader.read_at, reader.before, reader.instruments_due = [], None, None, True

    # One account

    def _account(self, reader: _Reader, look: Look) -> AccountSnapshot:
        book, view, name = reader.book, reader.view, reader.book.name
        venue = "alpaca" if book.market == "equity" else "binance"
        common = {"account": name, "venue": venue, "market": book.market, "currency": book.currency}
        at = look.equity[name]
        if any(begin <= at < end for begin, end in view.down):
            return AccountSnapshot(**common, quality="down", reason="the venue does not answer")  # type: ignore[arg-type]  # the names decide
        equity_picture = self.pictures[name, at]
        held = self.pictures[name, look.positions[name]]
        unknown = any(begin <= at < end for begin, end in view.positions_unknown)
        positions = None if unknown else self._positions(book, view, held)
        for contract, *_ in held.positions:
            reader.held[contract.symbol] = look.at
        fills, flows = self._ledger(reader, look.at, equity_picture, None if unknown else held)
        full = view.form in ("full", "coins")
        noise = (
            exact(equity_picture.equity * Decimal(str(self.rng.gauss(0.0, view.noise)))) if view.noise else Decimal(0)
        )
        unrealized = None
        told = positions is not None or not view.profit_with_positions
        if view.form == "full" and told:
            unrealized = equity_picture.unrealized + (noise if view.noise_in_profit else 0)
        stamped = view.stamps and view.form != "old"
        part_time = instant(look.at) if view.equity_cached or view.positions_lag or view.positions_cached else None
        read_at = None if view.form == "old" or reader.read_at is None else instant(reader.read_at)
        instruments = tuple(_rules(each) for each in book.contracts.values()) if reader.instruments_due else None
        reader.instruments_due = False
        return AccountSnapshot(
            **common,  # type: ignore[arg-type]  # the names decide
            quality="ok", observed_at=instant(look.at),
            equity=equity_picture.equity + noise, unrealized=unrealized,
            position_mode="hedge" if book.hedge else "one_way",
            balances=self._balances(book, view, equity_picture, look, told=told), positions=positions,
            fills=fills, flows=flows, instruments=instruments, orders=(),
            wallet_as_of=(part_time or instant(at)) if stamped else None,
            positions_as_of=(part_time or instant(held.at)) if stamped and positions is not None else None,
            fills_as_of=read_at, flows_as_of=read_at,
            row_lag_s=view.row_lag_s, complete=view.complete,
            marks=self._marks(reader, look, unknown=unknown) if full and view.marks else None,
        )  # fmt: skip

    def _positions(self, book: Book, view: View, held: Picture) -> tuple[Position, ...]:
        stamp = instant(held.at) if view.stamps and view.form != "old" else None
        rows = []
        if book.market in HOLDS:
            for contract in book.contracts.values():
                asset = contract.symbol.split("/", maxsplit=1)[0]
                amount, true = held.wallets.get(asset), contract.path.at(held.at)
                if amount:
                    mark = book.shown(asset, true, held.at)
                    rows.append(_holding(contract, amount, mark, true if view.index else None, stamp))
            return tuple(rows)
        for contract, side, contracts, entry, mark, profit in held.positions:
            rows.append(
                Position(
                    symbol=contract.symbol,
                    side=side,
                    contracts=contracts,
                    entry_price=entry if view.entries else None,
                    mark_price=mark,
                    index_price=contract.path.at(held.at) if view.index else None,
                    notional=_notional(book, contract, contracts, mark, held.at),
                    unrealized_pnl=profit,
                    mark_at=stamp,
                )
            )
        return tuple(rows)

    def _balances(
        self, book: Book, view: View, equity_picture: Picture, look: Look, *, told: bool
    ) -> tuple[Balance, ...] | None:
        if view.form == "old":
            return None
        index_at = look.index[book.name]
        rows = []
        for asset, wallet in equity_picture.wallets.items():
            if view.omits_empty and not wallet and not equity_picture.profits.get(asset):
                continue
            price = equity_picture.prices[asset]
            if index_at != equity_picture.at:
                price = book.shown(asset, book.price(asset, index_at), index_at)
            equity = wallet + equity_picture.profits.get(asset, Decimal(0))
            rows.append(
                Balance(
                    asset=asset,
                    amount=wallet,
                    price=price,
                    haircut=book.haircut(asset, equity_picture.at),
                    wallet=wallet if view.form == "full" else None,
                    equity=equity if view.form in ("full", "coins") and told else None,
                    price_at=instant(index_at) if view.stamps else None,
                )
            )
        return tuple(rows)

    def _marks(self, reader: _Reader, look: Look, *, unknown: bool) -> tuple[Mark, ...]:
        book = reader.book
        kept = {symbol: at for symbol, at in reader.held.items() if look.at - at <= MARKS_KEPT}
        reader.held = kept
        if book.market in HOLDS:
            kept = dict.fromkeys(book.contracts, look.at)
        at = look.at - 0.01
        marks = []
        for symbol in kept:
            name = symbol.split("/", maxsplit=1)[0] if book.market in HOLDS else symbol
            marks.append(Mark(symbol=symbol, mark_price=book.shown(name, book.contracts[symbol].path.at(at), at)))
        return tuple(marks)

    # The ledger

    def _ledger(
        self, reader: _Reader, now: float, equity_picture: Picture, held: Picture | None
    ) -> tuple[tuple[Fill, ...], tuple[Flow, ...]]:
        view = reader.view
        before = None if reader.before is None else reader.before[1]
        rows = before if held is None else [(row[0].symbol, row[1], row[2]) for row in held.positions]
        after = (equity_picture.wallets, rows)
        if reader.before is not None and after != reader.before:
            reader.moved_at = now
        moved = reader.moved_at == now
        reader.before = after
        age = now - reader.read_at if reader.read_at is not None else 1e9
        due = moved or age >= view.poll or (now - reader.moved_at <= 90 and age >= view.hurried)
        if now >= view.silent_from or not due:
            return (), ()
        reader.read_at = now
        fills = [row for row in reader.book.fills if row.visible <= now and row.id not in reader.seen]
        flows = [row for row in reader.book.flows if row.visible <= now and row.id not in reader.seen]
        reader.seen.update(row.id for row in (*fills, *flows))
        again, reader.again = reader.again, []
        if view.doubled:
            reader.again = [row for row in (*fills, *flows) if self.rng.random() < view.doubled]
        fills += [row for row in again if isinstance(row, FillRow)]
        flows += [row for row in again if isinstance(row, FlowRow)]
        return tuple(map(_fill, fills)), tuple(map(_flow, flows))


def _reset(account: str, t: float) -> Event:
    return Event(
        id=f"reset-{account}-{t:g}", at=instant(t), kind="reset", scope=f"account/{account}", author="operator",
        reason="reviewed",
    )  # fmt: skip


def _holding(
    contract: Contract, amount: Decimal, mark: Decimal, index: Decimal | None, stamp: datetime | None
) -> Position:
    return Position(
        symbol=contract.symbol, side="long" if amount > 0 else "short", contracts=abs(amount), mark_price=mark,
        index_price=index, notional=exact(abs(amount) * mark), mark_at=stamp,
    )  # fmt: skip


def _fill(row: FillRow) -> Fill:
    return Fill(
        id=row.id, at=instant(row.at), symbol=row.symbol, side=row.side, amount=row.contracts, price=row.price,
        position_side=row.position_side, fee=row.fee, fee_currency=row.fee_asset, realized_pnl=row.realized,
        cause=row.cause,  # type: ignore[arg-type]  # a cause of the world, as the venue writes it
    )  # fmt: skip


def _flow(row: FlowRow) -> Flow:
    return Flow(id=row.id, at=instant(row.at), kind=row.kind, amount=row.amount, currency=row.asset)  # type: ignore[arg-type]  # a kind of the world


def _rules(contract: Contract) -> Instrument:
    return Instrument(
        symbol=contract.symbol, contract_size=contract.size, inverse=contract.inverse,
        amount_step=contract.step, price_step=Decimal("0.0001"), min_amount=contract.step, state="open",
    )  # fmt: skip


def _notional(book: Book, contract: Contract, contracts: Decimal, mark: Decimal, t: float) -> Decimal:
    """In the account's currency."""
    base = contracts * contract.size
    value = base if contract.option else base / mark if contract.inverse else base * mark
    rate = ONE if contract.settle == book.currency else book.price(contract.settle, t)
    return exact(value * rate)


__all__ = ["START", "Feed", "View", "instant"]
