"""The prices of a scope's markets, sampled once for all signals and rankings that read them.

An account is observed when it was polled: a pass that repeats its last answer adds nothing. Prices are those of its
positions, of its watch list, and of what it closed lately. Samples survive resets: these re-base the money of a scope,
and the moves of markets remain what they were.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, field
from msgspec import json as msgjson

from killswitch.model.instant import to_micros
from killswitch.signals.history.collector import Collector, Needs
from killswitch.signals.history.sample_table import UNSTATED, SampleTable
from killswitch.signals.history.samples import PriceKey, SampleSeries, common_returns

if TYPE_CHECKING:
    from killswitch.signals.history.sample_table import Floats, Instants
    from killswitch.valuation.account_facts import AccountFacts
    from killswitch.valuation.held_positions import PositionSizes
    from killswitch.valuation.scope_view import ScopeView

T = TypeVar("T")

EACH_OBSERVATION = 1
"""The grid, in microseconds, on which every observation is a sample."""
_DURATIONS = ("window", "short", "long")


class StoredSamples(Struct, frozen=True, array_like=True):
    """The serialised samples of one account at one time: symbol, price, its venue time, whether a return leads to
    it."""

    account: str
    at: int
    prices: list[tuple[str, float, int | None, bool]]


class StoredAccount(Struct, omit_defaults=True):
    """When an account was observed last (microseconds), and the symbols that it had no price for, since when."""

    at: int
    gone: dict[str, int] = {}


class StoredPrices(Struct, omit_defaults=True):
    """The serialised state, without the samples, which are rows."""

    accounts: dict[str, StoredAccount] = field(default_factory=dict)


class _TogetherSampled:
    """The symbols that were sampled together, as long as the account holds the same and has no other prices.

    `rows`: `every` → the table of the account, and the rows of the symbols that it samples.
    """

    def __init__(self, sizes: PositionSizes, rows: Mapping[int, tuple[SampleTable, slice | Instants, Sequence[int]]]):
        self.sizes = sizes
        self.rows = rows


class _Account:
    """What is known of the last observation of one account."""

    def __init__(self, at: int | None = None, gone: Mapping[str, int] | None = None) -> None:
        self.at = at
        self.gone = dict(gone or {})
        """Symbol → since when it has no price."""
        self.sizes: PositionSizes | None = None
        self.contract_sizes: dict[str, Decimal] = {}
        self.facts: AccountFacts | None = None
        self.watched: tuple[str, ...] = ()
        self.priced: frozenset[str] | None = None
        """The symbols that had a price; None before the first observation of this run."""
        self.places: dict[int, int] = {}
        """`every` → place on its grid at which every priced symbol was sampled."""
        self.is_waiting = False
        """Whether a symbol that is held or watched has no price."""
        self.together: _TogetherSampled | None = None


class PriceSamples(Collector):
    """Samples of prices by account, symbol and `every`."""

    name = "prices"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        """Each need is the arguments of a signal or a ranking: a `window` (or `short` and `long`), an `every`, and a
        `symbol`, or none for all that is held or watched. Without an `every` each observation is a sample."""
        self.max_gap = max_gap
        self._grids: dict[str | None, dict[int, int]] = {}
        """Symbol, or None for all → `every` → how far its samples reach back."""
        for need in needs:
            every = need.get("every", EACH_OBSERVATION)
            spans = [value for key in _DURATIONS if isinstance(value := need.get(key), int)]
            symbol = need.get("symbol")
            if isinstance(every, int) and spans:
                grids = self._grids.setdefault(symbol if isinstance(symbol, str) else None, {})
                # a window that ends at the sample before the last begins so much earlier
                gap = max_gap if every == EACH_OBSERVATION else 2 * every
                grids[every] = max(grids.get(every, 0), max(spans) + gap)
        self._everies = tuple({every for grids in self._grids.values() for every in grids})
        self._of_all = frozenset(self._grids.get(None, ()))
        self._named = {symbol: frozenset(grids) for symbol, grids in self._grids.items() if symbol is not None}
        self.keep = max((keep for grids in self._grids.values() for keep in grids.values()), default=0)
        """How far back stored samples are read (microseconds)."""
        self._series: dict[PriceKey, dict[int, SampleSeries]] = {}
        self._by_symbol: dict[str, list[str]] = {}
        self._by_account: dict[str, set[str]] = {}
        self._split_at: dict[PriceKey, int] = {}
        self._accounts: dict[str, _Account] = {}
        self._cuts: set[PriceKey] = set()
        """The prices from whose newest stored sample no return is taken."""
        self._tables: dict[tuple[str, int], SampleTable] = {}
        """(account, `every`) → the samples of its prices."""
        self._new: list[StoredSamples] = []
        self._new_together: list[tuple[str, int, Sequence[str], Floats, int | None]] = []
        """The same of what was sampled together: account, time, symbols, prices, and their venue time."""
        self._samples = defaultdict[int, int](int)
        """`every` → the number of samples that were added."""
        self.book: object = None
        """What signals have found of the book that was observed last, for as long as nothing is traded."""
        self._computed: dict[Hashable, tuple[int, float, Sequence[SampleSeries], Any]] = {}

    # Reading

    def accounts_of(self, symbol: str) -> Sequence[str]:
        """The accounts that have had a price of this symbol."""
        return self._by_symbol.get(symbol, ())

    def series(self, key: PriceKey, every: int) -> SampleSeries | None:
        """The samples of (account, symbol) at `every`; None without any."""
        return self._series.get(key, {}).get(every)

    def continues(self, key: PriceKey, every: int, now: int) -> bool:
        """Whether the newest sample is of the grid point of `now`, when the account was observed last, and not cut."""
        series, account = self.series(key, every), self._accounts.get(key[0])
        if series is None or account is None or key in self._cuts or key[1] in account.gone or series.is_cut:
            return False
        return account.at == now and series.last_at is not None and series.last_at // every == now // every

    def split_at(self, key: PriceKey) -> int | None:
        """When the symbol was split last (microseconds); None if that was not seen."""
        return self._split_at.get(key)

    def returns(self, keys: Sequence[PriceKey], now: int, window: int, every: int) -> list[list[float]]:
        """The returns of each key in [now − window, now], oldest first, all between the same grid points."""
        found = [self.series(key, every) for key in keys]
        known = [each for each in found if each is not None]
        if len(known) < len(keys):
            return [[] for _ in keys]
        return [[float(value) for value in row] for row in common_returns(known, now, window)]

    def once(self, of: Hashable, series: Sequence[SampleSeries], now: int, compute: Callable[[], tuple[T, float]]) -> T:
        """`compute`, which depends on the samples of `series`, all of one `every`, in a window that ends now.

        It is computed once for a set of samples. `of` identifies what is computed.

        It also returns the time until which its samples are the same ones unless some are added.
        """
        count = self._samples[series[0].every] if series else 0
        known = self._computed.get(of)
        if known is None or known[0] != count or now > known[1] or (known[2] is not series and known[2] != series):
            found, until = compute()
            known = self._computed[of] = count, until, series, found
        result: T = known[3]
        return result

    # Observing

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        self._new, self._new_together = [], []
        for facts in view.facts:
            if not facts.is_priced(view.as_of, view.stale_after):
                continue
            at = view.as_of if facts.observed is None else min(facts.observed, view.as_of)
            account = self._accounts.setdefault(facts.name, _Account())
            if account.at is None or at > account.at:
                self._observe(account, facts, at)

    def _observe(self, account: _Account, facts: AccountFacts, at: int) -> None:
        if account.at is not None and at - account.at > self.max_gap:
            self._cut(facts.name, self._by_account.get(facts.name, ()))
        watched = tuple([each.symbol for each in facts.watched]) if facts.account.watched else ()
        has_changed = facts.held.sizes is not account.sizes or watched != account.watched
        if has_changed or facts.account.corporate_actions or facts.account.instruments:
            for symbol in _split_symbols(account, facts):
                self._split_at[facts.name, symbol] = at
                self._cut(facts.name, (symbol,))
        places = {every: at // every for every in self._everies}
        due = [every for every, place in places.items() if account.places.get(every) != place]
        if has_changed or account.is_waiting or not self._of_all.isdisjoint(due):
            if has_changed or not self._sample_together(account, facts, at):
                self._sample(account, facts, at, watched)
        elif due:
            self._sample_named(account, facts, at, due)
        account.places = places
        account.at, account.watched = at, watched
        account.sizes, account.facts = facts.held.sizes, facts

    def _sample_named(self, account: _Account, facts: AccountFacts, at: int, due: Sequence[int]) -> None:
        """Sample the symbols that signals name, while nothing else is due."""
        from killswitch.valuation.market_prices import mark_of

        stored = []
        for symbol, everies in self._named.items():
            if everies.isdisjoint(due):
                continue
            mark = None if _is_shut(facts, symbol) else mark_of(facts, symbol)
            if mark is None:
                account.is_waiting = account.is_waiting or symbol in (account.priced or ())
            elif (is_cut := self._add((facts.name, symbol), at, *mark)) is not None:
                stored.append((symbol, *mark, is_cut))
        if stored:
            self._new.append(StoredSamples(facts.name, at, stored))

    def _sample_together(self, account: _Account, facts: AccountFacts, at: int) -> bool:
        """Sample what was sampled together the last time, a table at once; False if it has to be one by one."""
        together, held = account.together, facts.held
        if together is None or together.sizes is not held.sizes or account.is_waiting or account.gone or self._cuts:
            return False
        if facts.account.watched or facts.account.marks:
            return False
        tables = together.rows
        due = {every: table.count_due(rows, at) for every, (table, rows, _) in tables.items()}
        if any(due[every] < len(tables[every][2]) for every in self._of_all):
            return False
        marks, printed = held.floats("mark"), _printed_together(facts)
        if printed is None or math.isnan(marks.sum()):
            return False
        at_venue = UNSTATED if printed.at is None else printed.at
        for every, (table, rows, places) in tables.items():
            if due[every] == len(places) > 1:
                prices = marks if len(places) == len(marks) else marks[places]
                table.add(rows, at, prices, at_venue, self.max_gap)
                self._samples[every] += 1
            elif due[every]:
                self._add_due(facts, every, places, at, printed.at)
        self._new_together.append((facts.name, at, held.sizes.symbols, marks, printed.at))
        return True

    def _add_due(self, facts: AccountFacts, every: int, places: Iterable[int], at: int, printed: int | None) -> None:
        """Add a sample of each of these positions that is due."""
        symbols, marks = facts.held.sizes.symbols, facts.held.floats("mark")
        for place in places:
            each = self._series[facts.name, symbols[place]][every]
            if each.is_due(at):
                each.add(at, float(marks[place]), printed, self.max_gap)
                self._samples[every] += 1

    def _find_together(self, facts: AccountFacts, known: Set[str]) -> _TogetherSampled | None:
        """What can be sampled together from now on; None if prices come from elsewhere than open positions."""
        sizes, account = facts.held.sizes, facts.account
        is_plain = sizes.are_plain and len(sizes.places) == len(sizes.symbols) == len(known)
        if not is_plain or None not in self._grids or account.watched or account.marks:
            return None
        rows = {}
        for every in self._everies:
            series = [self._series[facts.name, symbol].get(every) for symbol in sizes.symbols]
            places = [place for place, each in enumerate(series) if each is not None]
            if places:
                table = self._tables[facts.name, every]
                rows[every] = table, table.rows_of([each.row for each in series if each is not None]), places
        return _TogetherSampled(sizes, rows)

    def _sample(self, account: _Account, facts: AccountFacts, at: int, watched: tuple[str, ...]) -> None:
        """Sample every symbol, and note which of them have a price."""
        from killswitch.valuation.market_prices import marks_of

        marks = marks_of(facts)
        known = frozenset(marks) - _shut(facts, marks)
        before = self._by_account.get(facts.name, frozenset()) if account.priced is None else account.priced
        if account.at is not None:
            account.gone |= dict.fromkeys(before - known - account.gone.keys(), account.at)
        for symbol in known & account.gone.keys():
            if at - account.gone.pop(symbol) > self.max_gap:
                self._cut(facts.name, (symbol,))
        account.priced = known
        account.is_waiting = not known.issuperset(watched) or not known.issuperset(facts.held.sizes.symbols)
        stored = []
        for symbol, (price, printed) in marks.items():  # in their order, so that the rows of a table follow each other
            if symbol not in known or (None not in self._grids and symbol not in self._grids):
                continue
            is_cut = self._add((facts.name, symbol), at, price, printed)
            if is_cut is not None:
                stored.append((symbol, price, printed, is_cut))
        if stored:
            self._new.append(StoredSamples(facts.name, at, stored))
        account.together = self._find_together(facts, known)

    def _add(self, key: PriceKey, at: int, price: float, printed: int | None) -> bool | None:
        """Add the price to each series that is due. Whether it is cut off from what was before; None if none was."""
        is_added = False
        for every, each in (self._series.get(key) or self._series_of(key)).items():
            if each.is_due(at):
                each.add(at, price, printed, self.max_gap)
                self._samples[every] += 1
                is_added = True
        if not is_added:
            return None
        if not self._cuts or key not in self._cuts:
            return False
        self._cuts.remove(key)
        return True

    def _series_of(self, key: PriceKey) -> dict[int, SampleSeries]:
        found = self._series.get(key)
        if found is None:
            grids = {**self._grids.get(None, {})}
            for every, keep in self._grids.get(key[1], {}).items():
                grids[every] = max(keep, grids.get(every, 0))
            found = self._series[key] = {
                every: SampleSeries(every, keep, self._table(key[0], every)) for every, keep in grids.items()
            }
            self._by_symbol.setdefault(key[1], []).append(key[0])
            self._by_account.setdefault(key[0], set()).add(key[1])
        return found

    def _table(self, account: str, every: int) -> SampleTable:
        found = self._tables.get((account, every))
        if found is None:
            found = self._tables[account, every] = SampleTable(every)
        return found

    def _cut(self, account: str, symbols: Iterable[str]) -> None:
        """Take no return from the newest samples of these prices to the next ones."""
        for symbol in symbols:
            if (series := self._series.get((account, symbol))) is not None:
                self._cuts.add((account, symbol))
                for each in series.values():
                    each.cut()

    def add(self, at: int, marks: Mapping[PriceKey, float]) -> None:
        """Add prices observed at one time, for whoever observes accounts without a scope."""
        for key, price in marks.items():
            last = max((each.last_at or 0 for each in self._series_of(key).values()), default=0)
            if at - last > self.max_gap:
                self._cut(key[0], (key[1],))
            self._add(key, at, price, None)
            self._accounts.setdefault(key[0], _Account()).at = at

    def reach_back(self, now: int) -> int:
        """From when on observations have to be added so that signals read the same at `now` as with all of them.

        A sample is the first observation at or after a grid point: they begin at one.
        """
        edges = [(every, now - keep) for grids in self._grids.values() for every, keep in grids.items()]
        return min((edge - edge % every for every, edge in edges), default=now)

    # Storing

    def new_samples(self) -> list[StoredSamples]:
        """The samples that the last observation added, to be stored as a row."""
        found = [*self._new]
        for account, at, symbols, prices, printed in self._new_together:
            rows = [(symbol, price, printed, False) for symbol, price in zip(symbols, prices.tolist(), strict=True)]
            found.append(StoredSamples(account, at, rows))
        return found

    def replay(self, rows: Iterable[StoredSamples]) -> None:
        """Add stored samples, oldest first, which may have been sampled for other signals."""
        for row in rows:
            for symbol, price, printed, is_cut in row.prices:
                if None not in self._grids and symbol not in self._grids:
                    continue
                if is_cut:
                    self._cut(row.account, (symbol,))
                self._add((row.account, symbol), row.at, price, printed)

    def restart(self, now: int, *, accept: bool) -> None:
        """Nothing: the moves of markets remain what they were."""

    def state(self) -> object:
        accounts = {
            name: StoredAccount(each.at, each.gone) for name, each in self._accounts.items() if each.at is not None
        }
        return StoredPrices(accounts)

    def restore(self, stored: bytes) -> None:
        """The accounts; the samples are rows."""
        kept = _STATE.decode(stored)
        self._accounts = {name: _Account(each.at, each.gone) for name, each in kept.accounts.items()}


_STATE = msgjson.Decoder(StoredPrices)


class _Printed(Struct, frozen=True, gc=False):
    """The venue time of prices (microseconds); None if the venue does not state it."""

    at: int | None


def _printed_together(facts: AccountFacts) -> _Printed | None:
    """The venue time of the marks of all positions; None if they differ."""
    times = [row.mark_at for row in facts.held.reported]
    first = times[0] if times else None
    if any(each is not first for each in times):
        return None
    return _Printed(facts.marked_at if first is None else to_micros(first))


def _shut(facts: AccountFacts, symbols: Iterable[str]) -> Set[str]:
    """Those of the symbols in whose markets nothing trades."""
    sizes = facts.held.sizes
    keys = sizes.rule_keys if sizes.are_plain and len(sizes.places) == len(sizes.symbols) else ()
    known = zip(sizes.symbols, map(facts.rules.get, keys), strict=False)
    shut = {symbol for symbol, rule in known if rule is not None and rule.state in _SHUT}
    return shut.union(symbol for symbol in symbols if symbol not in sizes.places and _is_shut(facts, symbol))


_SHUT = ("halted", "delisted")


def _is_shut(facts: AccountFacts, symbol: str) -> bool:
    """Whether nothing trades in the market, so that its mark carries no information."""
    rule = facts.rules.get((facts.name, symbol))
    return rule is not None and rule.state in _SHUT


def _split_symbols(account: _Account, facts: AccountFacts) -> Iterator[str]:
    """The symbols that were split since the account was observed last."""
    from killswitch.pnl_explain.splits import split_symbols

    snapshot, before = facts.account, account.facts
    if snapshot.corporate_actions:
        yield from (each.symbol for each in snapshot.corporate_actions)
    if snapshot.instruments:
        yield from _redenominated(account, facts)
    if before is not None and facts.held.sizes is not account.sizes:
        traded = {fill.symbol for fill in snapshot.fills or ()}
        yield from split_symbols(before.account, snapshot, traded)


def _redenominated(account: _Account, facts: AccountFacts) -> Iterator[str]:
    """The symbols whose contracts have another size and an inverse price; remembers the sizes."""
    from killswitch.pnl_explain.splits import is_redenominated
    from killswitch.valuation.market_prices import marks_of

    sizes = {rule.symbol: rule.contract_size for rule in facts.account.instruments or () if rule.contract_size}
    changed = {it: new / old for it, new in sizes.items() if (old := account.contract_sizes.get(it, new)) != new}
    account.contract_sizes |= sizes
    if changed and account.facts is not None:
        old_marks, new_marks = marks_of(account.facts), marks_of(facts)
        for symbol, ratio in changed.items():
            if symbol in old_marks and symbol in new_marks:
                before, after = Decimal(old_marks[symbol][0]), Decimal(new_marks[symbol][0])
                if is_redenominated(ratio, before, after):
                    yield symbol
