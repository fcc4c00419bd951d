"""The state of one account that explains its changes of equity: its last snapshot, and the minute before it.

Times in microseconds, money as Decimal in the account's currency.
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal

from msgspec import Struct, field
from msgspec.structs import replace

from killswitch.model.instant import SECOND, to_micros
from killswitch.model.magnitude import sane, sound_account
from killswitch.model.snapshot import AccountSnapshot
from killswitch.pnl_explain.classification import (
    MINUTE_OF_SUMS,
    SLIP,
    SLIPS_IN_A_MINUTE,
    ResidualKind,
    classify_residual,
    skew_of,
    unrecorded_charges,
)
from killswitch.pnl_explain.decomposition import (
    collateral_effect,
    entries_changed,
    sizes_changed,
    wallet_change,
)
from killswitch.pnl_explain.ledger import FillRow
from killswitch.pnl_explain.pending_changes import NEARLY_ALL
from killswitch.pnl_explain.residual import Evidence, Residual, residual_of
from killswitch.pnl_explain.settlements import DroppedFlow, Settlements
from killswitch.pnl_explain.splits import may_be_share_split, restated_for_splits
from killswitch.pnl_explain.swings import Swing, Swings
from killswitch.pnl_explain.trades import ObservedTrades, Trades, fee_of
from killswitch.valuation.account_facts import holdings_value, wallets_value
from killswitch.valuation.position_measures import HOLDINGS, ZERO
from killswitch.valuation.scope_view import Instruments

CONTRADICTION = Decimal("0.1")
"""The difference of wallet and equity moves, as a fraction of equity, above which an answer is wrong."""
CARRIED_FOR = 5 * SECOND
"""How long equity and positions may be out of step before they are used as reported."""
DatedAmount = tuple[int, Decimal]
"""An instant and an amount."""


class CarriedResidual(Struct, frozen=True):
    """The residual by marks that the wallet did not show, `since` equity and positions were of different moments.

    The next consistent answers contain both. `partly`: positions were closed since, and some fills are missing.
    `by_wallet`: the part of the wallet's residual that counted for nothing. `settled`: the profit that entry prices
    show as settled, None if one is unknown. `was_in_step`: equity and positions were of one moment before, and nothing
    was traded since.
    """

    amount: Decimal = ZERO
    partly: bool = False
    since: int = 0
    by_wallet: Decimal = ZERO
    settled: Decimal | None = ZERO
    was_in_step: bool | None = None

    @property
    def is_open(self) -> bool:
        """Whether a residual is carried."""
        return self.partly or bool(self.amount)


NOTHING_CARRIED = CarriedResidual()


class AccountTrailState(Struct):
    """The serialised form of a trail."""

    before: AccountSnapshot
    at: int
    unrealized: Decimal | None
    trades: Trades = field(default_factory=Trades)
    swings: Swings = field(default_factory=Swings)
    carried: CarriedResidual = NOTHING_CARRIED
    noise: list[DatedAmount] = []
    slips: list[DatedAmount] = []
    had_parts: bool = False
    in_step: bool | None = None
    settlements: Settlements = field(default_factory=Settlements)


class AccountResidual(Struct, frozen=True):
    """The change of equity between two snapshots of an account that neither prices nor fills explain, before other
    rows.

    `noise` is n; `slack` is the possible effect of events without a row, `equity` the greater of the two equities. Not
    `complete`: parts of the equity that are usually reported are missing, and the amount is the whole change.
    `vanished`: contracts vanished without a fill, and all the money with them. `may_be_split`: shares changed in size
    and price as in a split. `blind`: it is a settlement that no position shows. `others`: the amounts that were not
    chosen, by the wallet or by marks.
    """

    since: int
    at: int
    amount: Decimal
    noise: Decimal
    slack: Decimal
    equity: Decimal
    complete: bool = True
    vanished: bool = False
    may_be_split: bool = False
    blind: bool = False
    others: tuple[Decimal, ...] = ()


class _Interval(Struct, frozen=True):
    """Two consecutive snapshots of the account, the earlier one in the units of the later one.

    `since` and `at` are their times, `noise` is n, `equity` the greater of the two equities. `unrealized_change` is ΔU,
    `by_wallet` ΔW; None if unknown. `in_step`: equity and positions of the later snapshot are of one moment; None if
    unknown. `traded`: a size differs, or positions are unknown.
    """

    before: AccountSnapshot
    after: AccountSnapshot
    since: int
    at: int
    noise: Decimal
    equity: Decimal
    equity_change: Decimal
    unrealized_change: Decimal | None
    by_wallet: Decimal | None
    in_step: bool | None
    traded: bool

    @property
    def is_still(self) -> bool:
        """Whether nothing was traded or settled, and the wallet did not move: prices explain every change."""
        still = self.by_wallet is not None and abs(self.by_wallet) <= self.noise
        return still and not self.traded and not entries_changed(self.before, self.after)

    @property
    def is_empty_of_contracts(self) -> bool:
        """Whether nearly all the money left, and the account, which may hold contracts, holds none."""
        if self.after.market in HOLDINGS or self.after.positions is None or self.after.equity is None:
            return False
        is_left = self.after.equity > (1 - NEARLY_ALL) * self.equity
        return not is_left and not any(each.contracts for each in self.after.positions)


class AccountTrail:
    """The trail of one account of a scope."""

    def __init__(self) -> None:
        self.before: AccountSnapshot | None = None
        self.at = 0
        self.trades = Trades()
        self.swings = Swings()
        self.settlements = Settlements()
        self.swing = ZERO
        """The part of the last change of equity that is noise."""
        self.noise_swings: list[Swing] = []
        """The earlier swings that the last observation identified as noise."""
        self.late_fills: list[FillRow] = []
        """The fills of the last observation that belong to earlier trades, or to trades that no position showed."""
        self._unrealized: Decimal | None = None
        self._tolerance = ZERO
        self._carried = NOTHING_CARRIED
        self._was_in_step: bool | None = None
        """Whether equity and positions of the last snapshot were of one moment; None if unknown."""
        self._out_of_step_since: int | None = None
        self._had_parts = False
        """Whether the parts of the equity were ever reported; then a snapshot without them is a gap."""
        self._noise: deque[DatedAmount] = deque()
        self._slips: deque[DatedAmount] = deque()

    def observe(
        self,
        at: int,
        account: AccountSnapshot,
        profit: Decimal | None,
        rules: Instruments,
        fills: list[FillRow],
        tolerance: Decimal,
    ) -> AccountResidual | None:
        """Observe the account's next snapshot; None for the first one, and if the parts of its equity are unknown.

        `profit`: the total profit of its positions, None if unknown. `tolerance`: n as a fraction of equity, without a
        reported wallet.
        """
        account = self._with_missing_part(account, profit, tolerance)
        before, since, unrealized_before = self.before, self.at, self._unrealized
        known = account.unrealized is not None and sane(account.unrealized)
        unrealized = account.unrealized if known else profit
        self.before, self.at, self._unrealized = account, at, unrealized
        self.swing, self.noise_swings, self.late_fills = ZERO, [], []
        self._forget_before(at - MINUTE_OF_SUMS)
        if before is None or before.equity is None or account.equity is None:
            self.swings.begin(account, profit)
            self._was_in_step = _is_in_step(account, profit, abs(account.equity or ZERO) * tolerance / 2)
            return None
        change = None if unrealized is None or unrealized_before is None else unrealized - unrealized_before
        self._had_parts = self._had_parts or unrealized_before is not None
        interval = self._interval(before, account, since, change, fills, tolerance)
        interval = replace(interval, in_step=_is_in_step(account, profit, interval.noise))
        self._out_of_step_since = (self._out_of_step_since or at) if interval.in_step is False else None
        is_still = interval.is_still and not fills
        if account.market not in HOLDINGS:
            self.swing, self.noise_swings = self.swings.observe(
                at, account, interval.equity_change, profit, interval.noise, unchanged=is_still
            )
        quiet = is_still and interval.in_step is not False and not self._carried.since
        if quiet and interval.by_wallet is not None and not self.settlements.is_provisional(at):
            self._was_in_step = interval.in_step
            return AccountResidual(since, at, interval.by_wallet, interval.noise, ZERO, interval.equity)
        found = self.trades.observe(at, since, sound_account(interval.before), sound_account(account), rules, fills)
        self.late_fills = self._without_carried(found.late, account.currency)
        return self._explained(interval, found)

    def _with_missing_part(
        self, account: AccountSnapshot, profit: Decimal | None, tolerance: Decimal
    ) -> AccountSnapshot:
        """The account with its unrealised profit by equity and wallets, if nothing else reports it.

        The last snapshot must have added up: E = Σ w p + U within n.
        """
        before, then = self.before, self._unrealized
        if account.unrealized is not None or profit is not None or account.equity is None:
            return account
        if before is None or before.equity is None or then is None:
            return account
        held, holds = wallets_value(before), wallets_value(account)
        if held is None or holds is None or abs(before.equity - held - then) > tolerance / 2 * abs(before.equity):
            return account
        return replace(account, unrealized=account.equity - holds)

    def _interval(
        self,
        before: AccountSnapshot,
        account: AccountSnapshot,
        since: int,
        change: Decimal | None,
        fills: list[FillRow],
        tolerance: Decimal,
    ) -> _Interval:
        before_equity, equity_now = before.equity or ZERO, account.equity or ZERO
        equity = max(abs(before_equity), abs(equity_now))
        traded = sizes_changed(before, account)
        if traded:
            before = restated_for_splits(before, account, {row.fill.symbol for row in fills}, equity * tolerance)
            traded = sizes_changed(before, account)
        by_wallet = _by_wallet(before, account, change)
        self._tolerance = tolerance / 2 if by_wallet is not None and account.unrealized is not None else tolerance
        noise = self.noise_of(equity)
        if by_wallet is not None and abs(by_wallet) > noise and _is_contradiction(before, account, change, by_wallet):
            by_wallet = None
        return _Interval(
            before, account, since, self.at, noise, equity, equity_now - before_equity, change, by_wallet, None, traded
        )

    def _explained(self, interval: _Interval, found: ObservedTrades) -> AccountResidual | None:
        """The residual if something was traded or settled, the wallet moved, or equity and positions are out of
        step."""
        moves, noise, at = found.moves, interval.noise, interval.at
        by_marks, by_wallet = _by_marks(interval, found), interval.by_wallet
        wallet_moved = True
        if interval.after.market in HOLDINGS:
            by_wallet = by_wallet if by_marks is None else by_marks
        elif by_wallet is not None:
            wallet_moved = abs(by_wallet) > noise
            # What fills put into the wallet: known realised P&L less fees.
            by_wallet -= sum((row.gain for row in found.timely if row.gain is not None), ZERO)
        by_marks = None if by_marks is None else by_marks + self._carried.amount
        skewed = skew_of(moves.repriced, _skew(interval.after), at - interval.since)
        bound = SLIP * moves.traded + skewed
        partly = not moves.is_covered or self._carried.partly
        unchanged = by_wallet is not None and abs(by_wallet) <= noise
        # By marks, closed positions lost money that the wallet does not show yet.
        ahead = partly and unchanged and by_marks is not None and by_marks > bound
        # A fill that the wallet does not contain yet must not make an unchanged wallet look changed.
        if interval.in_step and (moves.is_covered or (wallet_moved and not unchanged)):
            self.trades.mark_settled(at)
        carried = self._carried
        begun = carried.since or at
        waits = (interval.in_step is False or ahead) and at - begun <= CARRIED_FOR
        settled = None if moves.settled is None or carried.settled is None else sum(moves.settled, carried.settled)
        was_in_step = carried.was_in_step if carried.since else self._was_in_step
        evidence = Evidence(
            by_wallet, by_marks, noise, bound, interval.unrealized_change,
            settled=settled, carried=carried.by_wallet, dropped=self.settlements.dropped_by(at),
            traded=bool(moves.traded), partly=partly,
            in_step=interval.in_step, was_in_step=was_in_step, waits=waits,
        )  # fmt: skip
        residual = residual_of(evidence)
        self._remember_settlement(interval, evidence, residual, moves.settled or ())
        self._carried, self._was_in_step = NOTHING_CARRIED, interval.in_step
        if residual.amount is None:
            return self._unknown_parts(interval)
        if waits and by_marks is not None:
            left = ZERO if by_wallet is None else by_wallet + carried.by_wallet - residual.amount
            still = was_in_step if not moves.traded else False
            self._carried = CarriedResidual(by_marks - residual.amount, partly, begun, left, settled, still)
        # The residual by the wallet comes from one answer if that reports unrealised profit, too.
        slack = ZERO if _is_of_one_answer(interval, residual) else skewed
        if residual.amount < ZERO:
            slack += unrecorded_charges(moves.gross, moves.liquidated, interval.since, at)
        vanished = interval.is_empty_of_contracts and not self.trades.is_covered(at)
        traded = {row.fill.symbol for row in (*found.timely, *found.late)}
        is_split = bool(moves.traded) and may_be_share_split(interval.before, interval.after, traded)
        return AccountResidual(
            interval.since, at, residual.amount, noise, slack, interval.equity,
            vanished=vanished, may_be_split=is_split, others=residual.others,
            blind=residual.case == "settlement, positions unknown",
        )  # fmt: skip

    def _remember_settlement(
        self, interval: _Interval, evidence: Evidence, residual: Residual, parts: tuple[Decimal, ...]
    ) -> None:
        """Remember what was netted: provisionally while positions lag, else as settled.

        An account whose equity contains products that are not listed is out of step for good, and does not lag.
        """
        if residual.case in ("flow behind a loss", "settlement", "wallet"):
            self.settlements.drop_provisional()
        by_entries = sum(parts, ZERO)
        if abs(by_entries) > interval.noise:  # entry prices show a settlement, whenever wallet and equity follow
            settled = residual.netted if residual.case == "settlement" and evidence.traded else ZERO
            self.settlements.add(interval.since, interval.at, settled or by_entries, parts)
        elif residual.case == "flow behind a loss" or not residual.netted or evidence.settled:
            return
        elif self._out_of_step_since is not None and interval.at - self._out_of_step_since <= CARRIED_FOR:
            self.settlements.provisional = DroppedFlow(interval.since, interval.at, residual.netted)
        else:
            self.settlements.add(interval.since, interval.at, residual.netted)

    def _unknown_parts(self, interval: _Interval) -> AccountResidual | None:
        """The whole change if parts that are usually reported are missing; its cause is unknown."""
        if not self._had_parts:
            return None
        change = interval.equity_change
        return AccountResidual(
            interval.since, interval.at, change, interval.noise, abs(change), interval.equity, complete=False
        )

    def _without_carried(self, late: list[FillRow], currency: str) -> list[FillRow]:
        """The late fills without those of trades whose effect is carried."""
        if not self._carried.is_open:
            return late
        left = []
        for row in late:
            found = self.trades.match_late_fill(row, currency)
            if found is None:
                left.append(row)
            else:
                self._carried = replace(self._carried, amount=self._carried.amount - found[1])
        return left

    def classify(self, amount: Decimal, found: AccountResidual) -> ResidualKind:
        """Classify the part of a residual that rows do not explain; noise and slips count in the minute's sums."""
        kind = classify_residual(
            amount, found.equity, found.noise,
            traded=self.trades.notional(found.at), unfilled=self.trades.bound(found.at), slack=found.slack,
            noise_before=sum((each for _, each in self._noise), ZERO),
            slips_before=sum((each for _, each in self._slips), ZERO),
        )  # fmt: skip
        if kind == "noise" and amount:
            self._noise.append((found.at, amount))
        elif kind == "slip":
            self._slips.append((found.at, amount))
        return kind

    def noise_of(self, equity: Decimal) -> Decimal:
        """n for an equity, with the tolerance of the last observation."""
        return equity * self._tolerance

    def is_late_slip(self, amount: Decimal, equity: Decimal, at: int) -> bool:
        """Whether an earlier residual is within the slippage of the trades known by now."""
        slipped = sum((each for _, each in self._slips), ZERO)
        if abs(amount) > SLIP * self.trades.notional(at) or abs(slipped + amount) > SLIPS_IN_A_MINUTE * equity:
            return False
        self._slips.append((at, amount))
        return True

    def _forget_before(self, edge: int) -> None:
        for kept in (self._noise, self._slips):
            while kept and kept[0][0] < edge:
                kept.popleft()

    def state(self) -> AccountTrailState | None:
        """The state to store, with the parts of the snapshot that the next residual needs."""
        if self.before is None:
            return None
        slim = replace(
            self.before, orders=None, fills=None, flows=None, instruments=None, health=None, liquidity=None, reason=None
        )
        return AccountTrailState(
            slim, self.at, self._unrealized, self.trades, self.swings, self._carried,
            list(self._noise), list(self._slips), self._had_parts, self._was_in_step, self.settlements,
        )  # fmt: skip

    @classmethod
    def restored(cls, state: AccountTrailState) -> AccountTrail:
        """Restore a stored trail."""
        trail = cls()
        trail.before, trail.at, trail._unrealized = state.before, state.at, state.unrealized
        trail.trades, trail.swings = state.trades, state.swings
        trail._carried, trail._noise, trail._slips = state.carried, deque(state.noise), deque(state.slips)
        trail._had_parts, trail._was_in_step = state.had_parts, state.in_step
        trail.settlements = state.settlements
        return trail


def _is_in_step(account: AccountSnapshot, profit: Decimal | None, noise: Decimal) -> bool | None:
    """Whether unrealised profit and the positions' `profit` agree; None if one of them is not reported."""
    if profit is None or account.unrealized is None or not sane(account.unrealized):
        return None
    return abs(profit - account.unrealized) <= noise


def _by_wallet(before: AccountSnapshot, account: AccountSnapshot, profit: Decimal | None) -> Decimal | None:
    """ΔW; on a market of holdings by asset prices, or by the profit of the holdings."""
    if account.market not in HOLDINGS or account.unrealized is not None:
        return wallet_change(before, account, profit)
    by_prices = wallet_change(before, account, ZERO)
    if profit is None or by_prices is None or before.equity is None or account.equity is None:
        return by_prices
    return min(by_prices, account.equity - before.equity - profit, key=abs)


def _is_contradiction(
    before: AccountSnapshot, account: AccountSnapshot, change: Decimal | None, by_wallet: Decimal
) -> bool:
    """Whether wallet and equity moved differently by more than any noise, so that one of them is wrong."""
    if change is None or before.equity is None or account.equity is None or account.market in HOLDINGS:
        return False
    by_equity = account.equity - before.equity - change - collateral_effect(before, account)
    return abs(by_wallet - by_equity) > CONTRADICTION * max(abs(before.equity), abs(account.equity))


def _by_marks(interval: _Interval, found: ObservedTrades) -> Decimal | None:
    """ΔE − C − M, with trades at the prices of their fills and without their fees; None if M is unknown."""
    if found.moves.by_marks is None:
        return None
    fees = sum((fee_of(row, interval.after.currency) for row in found.timely), ZERO)
    by_prices = collateral_effect(interval.before, interval.after) + found.moves.by_marks
    return interval.equity_change - by_prices + fees


def _is_of_one_answer(interval: _Interval, residual: Residual) -> bool:
    """Whether the residual follows amounts of the wallet, so that prices of another moment do not distort it.

    On a market of holdings it does if equity is the sum of the holdings at the reported prices.
    """
    if interval.after.market not in HOLDINGS:
        return residual.by_wallet and interval.after.unrealized is not None
    return all(_adds_up(account, interval.noise) for account in (interval.before, interval.after))


def _adds_up(account: AccountSnapshot, noise: Decimal) -> bool:
    held = holdings_value(account)
    return held is not None and account.equity is not None and abs(account.equity - held) <= noise


def _skew(account: AccountSnapshot) -> int | None:
    """The time between the answers of a snapshot; None if the venue does not date them."""
    if account.wallet_as_of is None or account.positions_as_of is None:
        return None
    return abs(to_micros(account.wallet_as_of) - to_micros(account.positions_as_of))
