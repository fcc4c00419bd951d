"""The paper market: a venue that is one object, without clock, randomness or I/O of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from msgspec.structs import replace

from killswitch.market.account import CASH_MARKETS, PaperAccount
from killswitch.market.holding import ZERO, PaperHolding
from killswitch.market.interventions import Interventions
from killswitch.market.matching import Matching, Quotes, SplitMix64
from killswitch.market.meter import Meter
from killswitch.market.order import PaperOrder
from killswitch.market.order_checks import OrderChecks
from killswitch.market.rules import MarketRules, lots_down
from killswitch.market.snapshot import MarketActivity, snapshot_of, watched_prices
from killswitch.market.tape import MarketBar, tape_of
from killswitch.market.terms import VenueTerms
from killswitch.market.walk import BarWalk
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import (
    AccountSnapshot,
    Fill,
    FillCause,
    Flow,
    FlowKind,
    Instrument,
    InstrumentState,
    Market,
    Order,
    Side,
)
from killswitch.model.venue import OrderRejectedError, OrderReport, OrderRequest, Prices

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class PaperMarket:
    """A venue with linear contracts or cash holdings, in cross margin, in one-way or hedge mode.

    Prices are constant between calls of `advance`: orders fill at once against the bar that closed last, as far as its
    volume goes, and the rest works on through the next bars. Events are dated by the venue's clock, which bars and
    callers advance and which never goes back. The same calls with the same seed produce the same state, ids included.
    """

    def __init__(
        self,
        instruments: Iterable[Instrument],
        *,
        seed: int,
        rules: MarketRules | None = None,
        recall: timedelta = timedelta(hours=1),
        terms: VenueTerms | None = None,
    ) -> None:
        """Snapshots repeat the fills and flows of the last `recall`: readers count an id once. However long a bar
        lasts, everything since the bar before is shown.

        Raises ValueError for an instrument that is inverse or has no contract size or steps.
        """
        self.rules = rules or MarketRules()
        self.now: datetime | None = None
        """When the last bar closed; None before the first."""
        self.clock: datetime | None = None
        """The venue's time, at or after `now`; None before the first bar."""
        self.rules_version = 1
        """Incremented when an instrument's rules change, so that a reader requests them again."""
        self._recall = recall
        self._tapes = {instrument.symbol: tape_of(instrument) for instrument in instruments}
        self._accounts: dict[str, PaperAccount] = {}
        self._origin = ""
        self._transfers: set[str] = set()
        self._ids = 0
        self._activity = MarketActivity()
        quotes = Quotes(self._tapes)
        self._matching = Matching(self.rules, self._tapes, quotes, SplitMix64(seed), self._next_id)
        self._walk = BarWalk(self._accounts, self._matching)
        self._actions = Interventions(self._matching)
        self.agree(terms or VenueTerms())

    # -- setting up ---------------------------------------------------------------------------------------

    def add_account(
        self,
        account: str,
        *,
        market: Market,
        currency: str,
        wallet: Decimal,
        leverage: Decimal = Decimal(1),
        venue: str = "paper",
        hedge: bool = False,
    ) -> None:
        """Add an account with `wallet` money. `leverage` is for symbols that are opened without their own.

        With `hedge` both sides of a symbol can be held at once. Raises ValueError for a duplicate name, leverage not
        above zero, and leverage or hedge mode in a cash market.
        """
        if account in self._accounts:
            raise ValueError(f"account {account} exists already")
        if leverage <= 0 or (market in CASH_MARKETS and leverage != 1):
            raise ValueError(f"account {account}: leverage {leverage} is not possible in a {market} account")
        if hedge and market in CASH_MARKETS:
            raise ValueError(f"account {account}: a {market} account has one side only")
        made = PaperAccount(account, venue, market, currency, wallet, leverage, hedge)
        self._accounts[account] = made
        self._apply_lags(made)

    def open_position(
        self, account: str, symbol: str, side: Side, notional: Decimal, leverage: Decimal | None = None
    ) -> Decimal:
        """Give the account a position at the last price, without an order and without a fee; return its contracts.

        The contracts are the whole lots that `notional` buys. Equity does not change: in a cash market the account pays
        for it. Raises ValueError if the symbol has no price, is held already, the notional does not buy a lot, or a
        cash account would be short or pay more than it has.
        """
        holder, tape = self._account(account), self._tapes[symbol]
        price = self._matching.quotes.price(holder, symbol)
        key = holder.key(symbol, side)
        if not price or key in holder.holdings:
            raise ValueError(f"{symbol}: {'held already' if price else 'no price yet'}")
        contracts = lots_down(notional / (price * tape.size), tape.step)
        quantity = contracts * tape.size
        if contracts <= 0:
            raise ValueError(f"{symbol}: {notional} does not buy {tape.step}")
        if holder.is_cash and (side == "short" or quantity * price > holder.cash):
            raise ValueError(f"{symbol}: a {holder.market} account cannot be short or owe money")
        signed = quantity if side == "long" else -quantity
        holder.holdings[key] = PaperHolding(symbol, signed, signed * price, leverage or holder.leverage)
        return contracts

    def agree(self, terms: VenueTerms) -> None:
        """Set the venue's terms; counts of the old limits are dropped."""
        self.terms = terms
        self.meter = Meter(terms.traits)
        self._checks = OrderChecks(terms, self._matching)
        for holder in self._accounts.values():
            self._apply_lags(holder)

    def _apply_lags(self, holder: PaperAccount) -> None:
        holder.fills.lag = timedelta(seconds=self.terms.fill_lag)
        holder.flows.lag = timedelta(seconds=self.terms.flow_lag)

    def flow(
        self, account: str, kind: FlowKind, amount: Decimal, *, asset: str | None = None, lag: timedelta | None = None
    ) -> Flow:
        """Deposit (+) or withdraw (−) money now, or in a cash account an `asset` that it can hold.

        Snapshots show the row `lag` later; by default the lag of the terms. Raises ValueError before the first bar, for
        an asset that has no price or cannot be held, and for more of it than is held.
        """
        holder = self._account(account)
        return self._actions.transfer(holder, kind, amount, asset or holder.currency, self._time(), lag)

    def has_moved(self, transfer: str) -> bool:
        """Whether a transfer of this id was made."""
        return transfer in self._transfers

    def move(self, source: str, account: str, amount: Decimal, transfer: str) -> None:
        """Move free money between two accounts of one currency; both rows show at once, whatever the lag of the terms.

        Raises OrderRejectedError for the id of an earlier transfer, an amount not above 0, an account that there is not
        or in another currency, and more than the source has free; ValueError before the first bar.
        """
        giver, taker = self._account(source), self._accounts.get(account)
        if transfer in self._transfers:
            raise OrderRejectedError("other", f"there was a transfer {transfer} already")
        if taker is None or taker is giver or taker.currency != giver.currency:
            raise OrderRejectedError("other", f"{source} cannot move {giver.currency} to {account}")
        free = self.snapshot(source, instruments=False).free or ZERO
        if not ZERO < amount <= free:
            raise OrderRejectedError("insufficient_margin", f"{source} has {free.normalize():f} free, not {amount:f}")
        self._transfers.add(transfer)
        at_once = timedelta(0)
        self.flow(source, "transfer", -amount, lag=at_once)
        self.flow(account, "transfer", amount, lag=at_once)

    def set_instrument(self, instrument: Instrument) -> None:
        """Change a symbol's rules (its state, for example). Contract size and steps must stay.

        Raises ValueError if they do not; KeyError for an unknown symbol.
        """
        tape, new = self._tapes[instrument.symbol], tape_of(instrument)
        if (tape.size, tape.step, tape.tick) != (new.size, new.step, new.tick):
            raise ValueError(f"{instrument.symbol}: contract size and steps cannot change")
        tape.instrument = instrument
        self.rules_version += 1

    # -- time ---------------------------------------------------------------------------------------------

    def move_clock(self, at: datetime) -> None:
        """Advance the venue's clock to `at`, which dates later events. A clock that goes back is ignored.

        Before the first bar there is no time.
        """
        if self.clock is not None and at > self.clock:
            self.clock = at

    def advance(self, at: datetime, bars: Mapping[str, MarketBar]) -> None:
        """Close the bars at `at`: orders fill and margins are checked along their paths.

        A symbol without a bar keeps its last price and has no volume. The four points of all paths are passed together.
        Fills of resting orders and liquidations are dated `at`, or by the clock where that is ahead: their time inside
        the bar is unknown. Raises ValueError if `at` is not later than the bar before; KeyError for an unknown symbol.
        """
        if self.now is not None and at <= self.now:
            raise ValueError(f"bars must close later than {self.now.isoformat()}, not at {at.isoformat()}")
        if not self._origin:
            self._origin = _base36(to_micros(at))
        elapsed = (at - self.now).total_seconds() if self.now else None
        oldest = at - self._recall if self.now is None else min(at - self._recall, self.now)
        self.now = at
        self.clock = at if self.clock is None else max(self.clock, at)
        for symbol, tape in self._tapes.items():
            tape.begin(bars.get(symbol))
        unknown = bars.keys() - self._tapes.keys()
        if unknown:
            raise KeyError(f"no symbol {', '.join(sorted(unknown))}")
        if self.terms.shows_liquidity:
            self._activity.begin(elapsed, bars, self._tapes)
        if self._walk.is_eventful(bars):
            self._walk.along(self.clock, bars)
        for symbol, bar in bars.items():
            self._tapes[symbol].last = bar.close
        for account in self._accounts.values():
            account.forget_before(oldest)

    # -- actions of the venue itself --------------------------------------------------------------

    def deleverage(
        self,
        account: str,
        symbol: str,
        contracts: Decimal | None,
        price: Decimal,
        cause: FillCause = "adl",
        side: Side = "long",
    ) -> Fill:
        """Take over `contracts` of a position (all of it for None) at `price`: ADL, or a liquidation with its fee.

        `side` selects one of the two positions of hedge mode, and is ignored otherwise. Raises ValueError for more than
        is held, in a cash account, and before the first bar.
        """
        return self._actions.take_over(self._account(account), symbol, side, contracts, price, cause, self._time())

    def set_state(self, symbol: str, state: InstrumentState, price_band: Decimal | None = None) -> None:
        """Halt a symbol, open it again, or restrict the kinds of orders. None leaves `price_band` unchanged.

        Where nothing trades, resting orders stay and do not fill. Raises KeyError for an unknown symbol.
        """
        now = self._tapes[symbol].instrument
        self.set_instrument(replace(now, state=state, price_band=now.price_band if price_band is None else price_band))

    def delist(self, symbol: str, price: Decimal | None = None) -> None:
        """Delist a symbol: its orders are cancelled, and with a `price` positions are delivered at it.

        Without a price positions stay, with no market to close them in, as holdings of a cash account always do.
        """
        self.set_state(symbol, "delisted")
        self._actions.delist(self._accounts, symbol, price, self._time)

    # -- queries and orders -----------------------------------------------------------------------------

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(self._accounts)

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        return tuple(tape.instrument for tape in self._tapes.values())

    def snapshot(
        self, account: str, at: datetime | None = None, *, instruments: bool = True, watch: Iterable[str] = ()
    ) -> AccountSnapshot:
        """The current state of the account; observed at `at`, or at the venue's time where that is later or `at` is
        None. `watch`: symbols whose prices it has in `watched`.

        Later events are dated no earlier. Raises KeyError for an unknown account; ValueError before the first bar.
        """
        if at is not None:
            self.move_clock(at)
        now = self._time()
        activity = self._activity if self.terms.shows_liquidity else None
        lag = max(self.terms.fill_lag, self.terms.flow_lag)
        found = snapshot_of(self._account(account), self._matching, now, instruments, activity, lag)
        watched = watched_prices(self._tapes, self.rules, watch, now)
        return replace(found, watched=watched) if watched else found

    def prices(self, symbols: Iterable[str]) -> dict[str, Prices]:
        """The price of each symbol at the venue's time; unknown symbols and symbols without a price are left out.
        The market has one price: mark, index and last are the same."""
        found = ((symbol, self._tapes[symbol].last) for symbol in symbols if symbol in self._tapes)
        return {symbol: Prices(last, last, last, self.clock) for symbol, last in found if last is not None}

    def submit(self, account: str, request: OrderRequest) -> OrderReport:
        """Accept an order and fill what can be filled at once. Raises OrderRejectedError with the reason."""
        holder = self._account(account)
        self._checks.check(holder, request)
        order = PaperOrder(self._next_id("o"), request, self._time(), is_waiting=request.trigger_price is not None)
        holder.orders[request.client_order_id] = order
        holder.working.append(order)
        if not order.is_waiting:
            self._matching.enter(holder, order, self._tapes[request.symbol], self._time())
        holder.drop_done()
        return order.report()

    def submit_batch(self, account: str, requests: Sequence[OrderRequest]) -> list[OrderReport | OrderRejectedError]:
        """Accept each order as `submit` does, in turn; return the report or the refusal of each.

        Raises OrderRejectedError, before any order, if the batch is larger than the venue accepts.
        """
        most = self.terms.traits.batch
        if len(requests) > most:
            raise OrderRejectedError("other", f"a batch has at most {most} orders, not {len(requests)}")
        answers: list[OrderReport | OrderRejectedError] = []
        for request in requests:
            try:
                answers.append(self.submit(account, request))
            except OrderRejectedError as error:
                answers.append(error)
        return answers

    def close_book(self, account: str) -> None:
        """Close every position of the account at market. The result shows in its positions.

        Raises OrderRejectedError where the venue does not support it, and in cash accounts.
        """
        if not self.terms.traits.whole_book:
            raise OrderRejectedError("other", "this venue does not close whole books")
        self._actions.close_book(self._account(account), self._time())

    def find_order(self, account: str, symbol: str, client_order_id: str) -> OrderReport | None:
        """The order with this client id; None if there never was one."""
        order = self._find(account, symbol, client_order_id)
        return order.report() if order else None

    def open_orders(self, account: str) -> tuple[Order, ...]:
        return tuple(order.resting() for order in self._account(account).working)

    def fills(self, account: str, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        order = self._find(account, symbol, client_order_id)
        return tuple(order.fills) if order else ()

    def cancel(self, account: str, symbol: str, order_id: str) -> None:
        """Cancel a working order; an order that is gone, or never was, is not an error."""
        holder = self._account(account)
        for order in holder.working:
            if order.id == order_id and order.request.symbol == symbol:
                order.state = "canceled"
        holder.drop_done()

    def _find(self, account: str, symbol: str, client_order_id: str) -> PaperOrder | None:
        order = self._account(account).orders.get(client_order_id)
        return order if order is not None and order.request.symbol == symbol else None

    def _time(self) -> datetime:
        """The venue's time. Raises ValueError before the first bar."""
        if self.clock is None:
            raise ValueError("the market has not begun: no bar yet")
        return self.clock

    def _account(self, name: str) -> PaperAccount:
        try:
            return self._accounts[name]
        except KeyError:
            known = ", ".join(self._accounts) or "none"
            raise KeyError(f"no account {name}; the market has {known}") from None

    def _next_id(self, kind: str) -> str:
        """An id that is unique also among markets that begin at different times: a restarted venue repeats none."""
        self._ids += 1
        return f"{kind}{self._origin}-{self._ids}"


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits
