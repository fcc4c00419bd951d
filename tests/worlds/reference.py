"""A naive implementation of the first rule, from snapshots: no part of the product, slow, and in floats.

It is not what is judged. It shows that a world *can* be judged: that a reader who knows no more than the snapshots,
and never looks ahead, closes where the truth says so. Where it fails too, the world is unfair or the rule has a price
there. `python -m tests.worlds --rule page` prints its table.

Every interval between two snapshots is kept with its parts, and rows are assigned to it as they arrive; its profit or
loss is computed again at each snapshot, so that there is nothing to retract."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from msgspec import Struct, field

from killswitch.model.snapshot import UNIT_FLOWS, AccountSnapshot, Fill, Flow, Snapshot

SLIP = 0.021
BOUND = 0.20
NEAR = 4.0
LATEST = 20.0


def _f(value: object) -> float:
    return math.nan if value is None else float(value)  # type: ignore[arg-type]  # a number of JSON


class Parts(Struct):
    """One snapshot of one account, taken apart."""

    at: float
    equity: float
    wallets: dict[str, float]
    prices: dict[str, float]
    unrealized: float
    held: dict[tuple[str, str], float] | None
    marks: dict[str, float]
    fine: bool
    """Whether wallet and unrealised profit come from one answer."""
    spot: bool = False


class Interval(Struct):
    """The changes between two snapshots, and the rows that belong to them."""

    begin: float
    end: float
    equity: float
    change: float
    collateral: float
    marks: float
    """What the held positions' marks explain; NaN where positions were unknown."""
    wallet: float
    noise: float
    traded: dict[str, float]
    """Signed change of each symbol's quantity."""
    closing: dict[str, float]
    """The marks at its end."""
    gross: float
    skewed: float
    spot: bool
    fills: list[Fill] = field(default_factory=list)
    flows: list[tuple[Flow, float]] = field(default_factory=list)
    sizes: dict[str, tuple[float, bool, float]] = field(default_factory=dict)

    def flowed(self) -> float:
        return sum(value for _, value in self.flows)

    def residuals(self) -> tuple[float, float]:
        """The change that neither prices nor rows explain: by equity, positions and marks; and by the wallet alone."""
        flows = self.flowed()
        by_book, by_wallet = flows, flows
        for fill in self.fills:
            size, inverse, rate = self.sizes.get(fill.symbol, (1.0, False, 1.0))
            amount, price = float(fill.amount) * size, float(fill.price)
            mark = self.closing.get(fill.symbol, price)
            sign = 1.0 if fill.side == "buy" else -1.0
            each = (1 / price - 1 / mark) * rate if inverse else (mark - price)
            cost = _f(fill.fee) * self.closing.get("fee " + (fill.fee_currency or ""), 1.0)
            by_book += sign * amount * each - cost
            by_wallet += (sign * amount * each if self.spot else _f(fill.realized_pnl)) - cost
        return self.change - self.collateral - self.marks - by_book, self.wallet - by_wallet

    def residual(self) -> float:
        """The smaller of the two where no trade is visible."""
        book, wallet = self.residuals()
        if math.isnan(book):
            return wallet
        if self.traded and abs(wallet) > self.noise:
            return book
        return min(book, wallet, key=abs)

    def is_ahead(self) -> bool:
        """Positions or marks have moved and equity has not: they were polled later, or equity is an older answer."""
        book = self.change - self.collateral - self.marks
        return abs(self.wallet) <= self.noise and (abs(book) > 2 * self.noise or bool(self.traded))

    def joined(self, other: Interval) -> Interval:
        """This interval and the next one as one."""
        traded = dict(self.traded)
        for symbol, amount in other.traded.items():
            traded[symbol] = traded.get(symbol, 0.0) + amount
        return Interval(
            self.begin, other.end, self.equity, self.change + other.change, self.collateral + other.collateral,
            self.marks + other.marks, self.wallet + other.wallet, max(self.noise, other.noise), traded,
            {**self.closing, **other.closing}, max(self.gross, other.gross), self.skewed + other.skewed, self.spot,
            [*self.fills, *other.fills], [*self.flows, *other.flows], other.sizes,
        )  # fmt: skip

    def earned(self) -> float:
        """Rows that are profit or loss are no flow; deposits, withdrawals and transfers are."""
        return self.change - sum(value for flow, value in self.flows if flow.kind in UNIT_FLOWS)


class Account:
    """One account's intervals."""

    def __init__(self) -> None:
        self.last: Parts | None = None
        self.intervals: list[Interval] = []
        self.waiting: list[tuple[float, Flow, float]] = []
        self.seen: set[str] = set()
        self.sizes: dict[str, tuple[float, bool]] = {}
        self.swings: deque[tuple[float, float]] = deque()
        self.complete = True

    def read(self, at: float, account: AccountSnapshot) -> None:
        """Add a snapshot."""
        self.complete = account.complete is not False
        for rule in account.instruments or ():
            self.sizes[rule.symbol] = (float(rule.contract_size or 1), rule.inverse)
        if account.quality != "ok" or account.equity is None:
            return
        now = self._parts(at, account)
        if self.last is not None:
            self.intervals.append(self._interval(self.last, now))
        if now.held is None and self.last is not None:
            now.held = None
        self.last = now
        self._rows(at, account)

    def _parts(self, at: float, account: AccountSnapshot) -> Parts:
        equity = float(account.equity or 0)
        spot = account.market == "spot"
        held: dict[tuple[str, str], float] | None = None
        marks = {each.symbol: float(each.mark_price) for each in account.marks or ()}
        profit = 0.0
        if account.positions is not None:
            held = {}
            for each in account.positions:
                held[each.symbol, each.side] = float(each.contracts)
                marks.setdefault(each.symbol, _f(each.mark_price))
                profit += float(each.unrealized_pnl or 0)
        rows = account.balances or ()
        fine = bool(rows) and (spot or (account.unrealized is not None and all(b.wallet is not None for b in rows)))
        prices = {b.asset: _f(b.price) for b in rows}
        if fine:
            wallets = {b.asset: float(b.amount if b.wallet is None else b.wallet) for b in rows}
            unrealized = 0.0 if spot else _f(account.unrealized)
        else:
            unrealized = profit if account.positions is not None else math.nan
            wallets, prices = {account.currency: equity - unrealized}, {account.currency: 1.0}
        return Parts(at, equity, wallets, prices, unrealized, held, marks, fine, spot)

    def _interval(self, a: Parts, b: Parts) -> Interval:
        assets = a.wallets.keys() | b.wallets.keys()
        prices = {**a.prices, **b.prices}
        collateral = sum(a.wallets.get(x, 0.0) * (prices[x] - a.prices.get(x, prices[x])) for x in assets)
        wallet = sum((b.wallets.get(x, 0.0) - a.wallets.get(x, 0.0)) * prices[x] for x in assets)
        marks, gross, skewed, traded = 0.0, 0.0, 0.0, {}
        sizes = {}
        for symbol, (size, inverse) in self.sizes.items():
            coin = symbol.split("/", maxsplit=1)[0]
            sizes[symbol] = (size, inverse, prices.get(coin, 1.0))
        if a.held is None or b.held is None:
            marks = 0.0 if b.spot else math.nan
        else:
            for symbol, side in a.held.keys() | b.held.keys():
                before, after = a.held.get((symbol, side), 0.0), b.held.get((symbol, side), 0.0)
                sign = 1.0 if side == "long" else -1.0
                if before != after:
                    traded[symbol] = traded.get(symbol, 0.0) + sign * (after - before)
                size, inverse, rate = sizes.get(symbol, (1.0, False, 1.0))
                first, last = a.marks.get(symbol), b.marks.get(symbol)
                if not first or not last or b.spot:
                    continue
                each = (1 / first - 1 / last) * rate if inverse else last - first
                split = before and after and abs(before * first - after * last) < 0.02 * before * first
                if split and abs(after / before - 1) > 0.5:
                    traded.pop(symbol, None)
                    continue
                marks += sign * before * size * each
                skewed += abs(before * size * each)
                gross += abs(before * size * (rate / first if inverse else first))
        closing = {**b.marks, **{"fee " + x: p for x, p in prices.items()}}
        share = 0.0005 if b.fine else 0.001
        return Interval(
            a.at, b.at, a.equity, b.equity - a.equity, collateral, marks, wallet, share * max(a.equity, 1.0),
            traded, closing, gross, skewed, b.spot, sizes=sizes,
        )  # fmt: skip

    # Rows

    def _rows(self, at: float, account: AccountSnapshot) -> None:
        for fill in account.fills or ():
            if fill.id not in self.seen:
                self.seen.add(fill.id)
                self._put_fill(fill)
        for flow in account.flows or ():
            if flow.id not in self.seen:
                self.seen.add(flow.id)
                price = 1.0 if self.last is None else self.last.prices.get(flow.currency, 1.0)
                self.waiting.append((at, flow, float(flow.amount) * price))
        left = []
        for since, flow, value in self.waiting:
            if not self._put_flow(flow, value) and at - since < 60:
                left.append((since, flow, value))
        self.waiting = left

    def _put_fill(self, fill: Fill) -> None:
        at, near = fill.at.timestamp(), []
        for each in self.intervals:
            if each.begin - NEAR <= at <= each.end + NEAR:
                size = each.traded.get(fill.symbol, 0.0) != 0.0
                inside = each.begin - 0.5 <= at <= each.end
                near.append((not size, not inside, abs(each.end - at), each))
        if near:
            min(near, key=lambda row: row[:3])[3].fills.append(fill)

    def _put_flow(self, flow: Flow, value: float) -> bool:
        at = flow.at.timestamp()
        best: tuple[float, Interval] | None = None
        for each in self.intervals:
            near = each.begin - NEAR <= at <= each.end + NEAR
            late = at - NEAR <= each.begin <= at + 60
            if not near and not late:
                continue
            _, wallet = each.residuals()
            left = abs(wallet - value)
            fits = left <= max(each.noise, 0.02 * abs(value))
            if (near and left < abs(wallet) - 0.5 * abs(value)) or fits:
                rank = left + (0.0 if near else abs(value))
                if best is None or rank < best[0]:
                    best = (rank, each)
        if best is None:
            return False
        best[1].flows.append((flow, value))
        return True

    # What it comes to

    def gains(self, now: float, read: float, lag: float) -> list[tuple[Interval, float]]:
        """Profit or loss of each interval, as far as it is one."""
        found = []
        small: deque[tuple[float, float]] = deque()
        falls: list[float] = []
        noisy = self._noisy()
        joined = False
        for i, single in enumerate(self.intervals):
            if joined:  # it is part of the last one
                joined = False
                continue
            each = single
            if i + 1 < len(self.intervals) and single.is_ahead():
                each, joined = single.joined(self.intervals[i + 1]), True
            left = each.residual()
            size = abs(left)
            counted = each.earned()
            if noisy and not math.isnan(each.marks) and size <= each.noise and self.complete:
                counted = each.collateral + each.marks if not each.traded else counted
            if size > each.noise and not self._is_loss(i, each, left, now, read, lag, small, falls):
                counted -= left
            found.append((each, counted))
        return found

    def _noisy(self) -> bool:
        """Equity swings both ways repeatedly, without trades, prices or rows."""
        ups = downs = 0
        for each in self.intervals[-60:]:
            if each.traded or math.isnan(each.marks):
                continue
            left = each.change - each.collateral - each.marks - each.wallet
            if abs(left) > 3 * each.noise + 0.5 * each.skewed:
                ups, downs = ups + (left > 0), downs + (left < 0)
        return ups >= 3 and downs >= 3

    def _is_loss(
        self, i: int, each: Interval, left: float, now: float, read: float, lag: float,
        small: deque[tuple[float, float]], falls: list[float],
    ) -> bool:  # fmt: skip
        size, traded = abs(left), self._unreported(i)
        if size <= SLIP * traded:
            while small and small[0][0] < each.end - 60:
                small.popleft()
            if sum(x for _, x in small) + size <= 0.01 * each.equity:
                small.append((each.end, size))
                return True
        waits = max(LATEST, lag) if size > 0.01 * each.equity else 5.0
        bound = BOUND * traded + (0.15 * each.skewed if each.traded else 0.0)
        if size <= bound:
            if left > 0:  # the milder reading: sold before the marks fell, rather than lost and refilled
                return True
            return read >= each.end + waits or now >= each.end + 60
        if left < 0:
            falls.append(each.end)
            recent = [t for t in falls if t > each.end - 30]
            later = self._falls_around(i, each)
            if len(recent) >= 5 or later >= 5:
                return read >= each.end + 5.0
        return False

    def _falls_around(self, i: int, each: Interval) -> int:
        """The most falls without a trade or a row within 30 s of which this one is part."""
        times = [
            other.end for other in self.intervals
            if abs(other.end - each.end) <= 30 and other.residual() < -other.noise and not self._unreported_of([other])
        ]  # fmt: skip
        return max((sum(1 for t in times if s <= t <= s + 30) for s in times), default=0)

    def _unreported(self, i: int) -> float:
        """The notional that changed around an interval without a fill."""
        here = self.intervals[i]
        near = list(self._around(here.begin - 3.0, here.end + 5.0, i))
        return self._unreported_of(near)

    def _around(self, begin: float, end: float, i: int) -> Iterable[Interval]:
        for each in self.intervals[max(i - 6, 0) : i + 8]:
            if each.end >= begin and each.begin <= end:
                yield each

    def _unreported_of(self, near: list[Interval]) -> float:
        """The notional traded in all of these together, less their fills; a late answer is no trade."""
        total = 0.0
        for symbol in {symbol for each in near for symbol in each.traded}:
            left = sum(each.traded.get(symbol, 0.0) for each in near)
            fills = [fill for each in near for fill in each.fills if fill.symbol == symbol]
            left -= sum((1 if fill.side == "buy" else -1) * float(fill.amount) for fill in fills)
            if abs(left) > 1e-9:
                size, inverse, rate = near[-1].sizes.get(symbol, (1.0, False, 1.0))
                mark = next((each.closing[symbol] for each in reversed(near) if symbol in each.closing), 0.0)
                total += abs(left) * size * ((rate / mark if mark else 0.0) if inverse else mark)
        return total


class Reference:
    """A reader of snapshots that decides when to close a scope."""

    def __init__(self, scope: str, threshold: float) -> None:
        self.scope, self.threshold = scope, threshold
        self.accounts: dict[str, Account] = {}
        self.fired: dict[str, float] = {}
        self.falls: dict[str, float] = {}

    def tick(self, snapshot: Snapshot) -> list[str]:
        """The scopes to close now."""
        now = snapshot.as_of.timestamp()
        gains: dict[str, list[tuple[Interval, float]]] = {}
        for each in snapshot.accounts:
            account = self.accounts.setdefault(each.account, Account())
            account.read(now, each)
            stamps = [t.timestamp() for t in (each.fills_as_of, each.flows_as_of) if t is not None]
            gains[each.account] = account.gains(now, min(stamps, default=0.0), each.row_lag_s or 0.0)
        if self.scope == "portfolio":
            merged: dict[float, list[float]] = {}
            for rows in gains.values():
                for interval, gain in rows:
                    both = merged.setdefault(interval.end, [0.0, 0.0])
                    both[0] += interval.equity
                    both[1] += gain
            values = [(equity, gain) for _, (equity, gain) in sorted(merged.items())]
            return self._judge("portfolio", values)
        return [
            scope
            for name, rows in gains.items()
            for scope in self._judge(f"account/{name}", [(interval.equity, gain) for interval, gain in rows])
        ]

    def _judge(self, scope: str, values: list[tuple[float, float]]) -> list[str]:
        value = peak = 1.0
        for equity, gain in values:
            value = value * (equity + gain) / equity if equity > 0 and equity + gain > 0 else 0.0
            peak = max(peak, value)
        self.falls[scope] = 1.0 - value / peak
        if self.falls[scope] >= self.threshold and scope not in self.fired:
            self.fired[scope] = 0.0
            return [scope]
        return []
