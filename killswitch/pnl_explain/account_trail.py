"""The state of one account that explains its changes of equity: its last snapshot, and the minute before it.

Times in microseconds, money as Decimal in the account's currency.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
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
from killswitch.pnl_explain.decomposition import collateral_effect, sizes_changed, wallet_change
from killswitch.pnl_explain.ledger import FillRow
from killswitch.pnl_explain.swings import Swing, Swings
from killswitch.pnl_explain.trades import ObservedTrades, Trades, fee_of
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
    """

    amount: Decimal = ZERO
    partly: bool = False
    since: int = 0

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


class AccountResidual(Struct, frozen=True):
    """The change of equity between two snapshots of an account that neither prices nor fills explain, before other
    rows.

    `noise` is n; `slack` is the possible effect of events without a row, `equity` the greater of the two equities. Not
    `complete`: parts of the equity that are usually reported are missing, and the amount is the whole change.
    """

    since: int
    at: int
    amount: Decimal
    noise: Decimal
    slack: Decimal
    equity: Decimal
    complete: bool = True


@dataclass(frozen=True, slots=True)
class _Interval:
    """The interval between two snapshots: their times, n, and the greater equity.

    `out_of_step`: equity and positions of the later snapshot are of different moments; None if unknown.
    """

    since: int
    at: int
    noise: Decimal
    equity: Decimal
    out_of_step: bool | None


class AccountTrail:
    """The trail of one account of a scope."""

    def __init__(self) -> None:
        self.before: AccountSnapshot | None = None
        self.at = 0
        self.trades = Trades()
        self.swings = Swings()
        self.swing = ZERO
        """The part of the last change of equity that is noise."""
        self.noise_swings: list[Swing] = []
        """The earlier swings that the last observation identified as noise."""
        self.late_fills: list[FillRow] = []
        """The fills of the last observation that belong to earlier trades, or to trades that no position showed."""
        self._unrealized: Decimal | None = None
        self._tolerance = ZERO
        self._carried = NOTHING_CARRIED
        self._was_out_of_step: bool | None = None
        """Whether equity and positions were out of step at the last observation; None if unknown."""
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
        known = account.unrealized is not None and sane(account.unrealized)
        unrealized = account.unrealized if known else profit
        before, since, unrealized_before = self.before, self.at, self._unrealized
        self.before, self.at, self._unrealized = account, at, unrealized
        self.swing, self.noise_swings, self.late_fills = ZERO, [], []
        self._forget_before(at - MINUTE_OF_SUMS)
        if before is None or before.equity is None or account.equity is None:
            self.swings.begin(account, profit)
            return None
        change = None if unrealized is None or unrealized_before is None else unrealized - unrealized_before
        by_wallet = _by_wallet(before, account, change)
        self._had_parts = self._had_parts or unrealized_before is not None
        exact = by_wallet is not None and account.unrealized is not None
        equity = max(abs(before.equity), abs(account.equity))
        self._tolerance = tolerance / 2 if exact else tolerance
        noise = self.noise_of(equity)
        if by_wallet is not None and abs(by_wallet) > noise and _is_contradiction(before, account, change, by_wallet):
            by_wallet = None
        traded = sizes_changed(before, account)
        unchanged = by_wallet is not None and not fills and not traded and abs(by_wallet) <= noise
        if account.market not in HOLDINGS:
            equity_change = account.equity - before.equity
            self.swing, self.noise_swings = self.swings.observe(
                at, account, equity_change, profit, noise, unchanged=unchanged
            )
        out_of_step = None if profit is None or unrealized is None or not known else abs(profit - unrealized) > noise
        if unchanged and by_wallet is not None and not out_of_step and not self._carried.is_open:
            self._was_out_of_step = out_of_step
            return AccountResidual(since, at, by_wallet, noise, ZERO, equity)
        interval = _Interval(since, at, noise, equity, out_of_step)
        before, account = sound_account(before), sound_account(account)
        found = self.trades.observe(at, since, before, account, rules, fills)
        self.late_fills = self._without_carried(found.late, account.currency)
        return self._residual(interval, before, account, by_wallet, found)

    def _residual(
        self,
        interval: _Interval,
        before: AccountSnapshot,
        account: AccountSnapshot,
        by_wallet: Decimal | None,
        found: ObservedTrades,
    ) -> AccountResidual | None:
        """The residual if something was traded, the wallet moved, or equity and positions are out of step."""
        moves, noise = found.moves, interval.noise
        by_marks = _by_marks(before, account, found)
        moved = True
        if account.market in HOLDINGS:
            by_wallet = by_wallet if by_marks is None else by_marks
        elif by_wallet is not None:
            moved = abs(by_wallet) > noise
            # What fills put into the wallet: known realised P&L less fees.
            by_wallet -= sum((row.gain for row in found.timely if row.gain is not None), ZERO)
        by_marks = None if by_marks is None else by_marks + self._carried.amount
        skewed = skew_of(moves.repriced, _skew(account), interval.at - interval.since)
        bound = SLIP * moves.traded + skewed
        partly = not moves.is_covered or self._carried.partly
        unchanged = by_wallet is not None and abs(by_wallet) <= noise
        # By marks, closed positions lost money that the wallet does not show yet.
        ahead = partly and unchanged and by_marks is not None and by_marks > bound
        # A fill that the wallet does not contain yet must not make an unchanged wallet look changed.
        if interval.out_of_step is False and (moves.is_covered or (moved and not unchanged)):
            self.trades.mark_settled(interval.at)
        begun = self._carried.since or interval.at
        waits = (bool(interval.out_of_step) or ahead) and interval.at - begun <= CARRIED_FOR
        # While it waits and the wallet is unchanged, the equity does not contain what positions show.
        # If nothing was traded and all answers are of one moment, only transfers and rows move the wallet.
        exact = interval.out_of_step is False and self._was_out_of_step is False
        uses_wallet = (waits and unchanged) or (exact and not moves.traded and not partly)
        uses_wallet = uses_wallet or _is_by_wallet(by_wallet, by_marks, noise, bound, partly=partly)
        amount = by_wallet if uses_wallet else by_marks
        self._carried, self._was_out_of_step = NOTHING_CARRIED, interval.out_of_step
        if amount is None:
            return self._unknown_parts(interval, before, account)
        if waits and by_marks is not None:
            self._carried = CarriedResidual(by_marks - amount, partly, begun)
        # The residual by the wallet comes from one answer if that reports unrealised profit, too.
        allowed = ZERO if uses_wallet and account.unrealized is not None else skewed
        if amount < ZERO:
            allowed += unrecorded_charges(moves.gross, moves.liquidated, interval.since, interval.at)
        return AccountResidual(interval.since, interval.at, amount, noise, allowed, interval.equity)

    def _unknown_parts(
        self, interval: _Interval, before: AccountSnapshot, account: AccountSnapshot
    ) -> AccountResidual | None:
        """The whole change if parts that are usually reported are missing; its cause is unknown."""
        if not self._had_parts or before.equity is None or account.equity is None:
            return None
        change = account.equity - before.equity
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
            list(self._noise), list(self._slips), self._had_parts,
        )  # fmt: skip

    @classmethod
    def restored(cls, state: AccountTrailState) -> AccountTrail:
        """Restore a stored trail."""
        trail = cls()
        trail.before, trail.at, trail._unrealized = state.before, state.at, state.unrealized
        trail.trades, trail.swings = state.trades, state.swings
        trail._carried, trail._noise, trail._slips = state.carried, deque(state.noise), deque(state.slips)
        trail._had_parts = state.had_parts
        return trail


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


def _by_marks(before: AccountSnapshot, account: AccountSnapshot, found: ObservedTrades) -> Decimal | None:
    """ΔE − C − M, with trades at the prices of their fills and without their fees; None if M is unknown."""
    if found.moves.by_marks is None or before.equity is None or account.equity is None:
        return None
    fees = sum((fee_of(row, account.currency) for row in found.timely), ZERO)
    return account.equity - before.equity - collateral_effect(before, account) - found.moves.by_marks + fees


def _skew(account: AccountSnapshot) -> int | None:
    """The time between the answers of a snapshot; None if the venue does not date them."""
    if account.wallet_as_of is None or account.positions_as_of is None:
        return None
    return abs(to_micros(account.wallet_as_of) - to_micros(account.positions_as_of))


def _is_by_wallet(
    by_wallet: Decimal | None, by_marks: Decimal | None, noise: Decimal, bound: Decimal, *, partly: bool
) -> bool:
    """Whether to use the residual by the wallet instead of the one by marks.

    If all closed positions have fills, the smaller one is used: marks of another moment than the wallet distort only
    the residual by marks. Otherwise (`partly`) the wallet contains P&L realised against unknown prices, and the
    residual by marks is used, unless the wallet is unchanged and the residual by marks is at most `bound`.
    """
    if by_wallet is None or by_marks is None:
        return by_marks is None
    if partly:
        return abs(by_wallet) <= noise and abs(by_marks) <= bound
    return abs(by_wallet) <= abs(by_marks)
