"""The interval between two consecutive snapshots of an account: what moved, and by how much at most by noise.

Times in microseconds, money as Decimal in the account's currency.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal

from msgspec import Struct

from killswitch.model.instant import to_micros
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot
from killswitch.pnl_explain.decomposition import collateral_effect, entries_changed, sizes_changed, wallet_change
from killswitch.pnl_explain.pending_changes import NEARLY_ALL
from killswitch.pnl_explain.residual import ChosenResidual
from killswitch.pnl_explain.splits import restated_for_splits
from killswitch.pnl_explain.trades import ObservedTrades, fee_of
from killswitch.valuation.account_facts import holdings_value
from killswitch.valuation.position_measures import HOLDINGS, ZERO

CONTRADICTION = Decimal("0.1")
"""The difference of wallet and equity moves, as a fraction of equity, above which an answer is wrong."""


class Interval(Struct, frozen=True):
    """Two consecutive snapshots of the account with known equity, the earlier one in the units of the later one.

    `since` and `at` are their times, `equity` the greater of the two equities, `noise` is n, `tolerance` × equity.
    `unrealized_change` is ΔU, `by_wallet` ΔW; None if unknown. `in_step`: equity and positions of the later snapshot
    are of one moment; None if unknown. `traded`: a size differs, or positions are unknown.
    """

    before: AccountSnapshot
    after: AccountSnapshot
    since: int
    at: int
    equity: Decimal
    equity_change: Decimal
    tolerance: Decimal
    noise: Decimal
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

    @property
    def skew(self) -> int | None:
        """The time between the answers of the later snapshot; None if the venue does not date them."""
        if self.after.wallet_as_of is None or self.after.positions_as_of is None:
            return None
        return abs(to_micros(self.after.wallet_as_of) - to_micros(self.after.positions_as_of))

    def by_marks(self, found: ObservedTrades) -> Decimal | None:
        """ΔE − C − M, with trades at the prices of their fills and without their fees; None if M is unknown."""
        if found.moves.by_marks is None:
            return None
        fees = sum((fee_of(row, self.after.currency) for row in found.timely), ZERO)
        by_prices = collateral_effect(self.before, self.after) + found.moves.by_marks
        return self.equity_change - by_prices + fees

    def is_of_one_answer(self, residual: ChosenResidual) -> bool:
        """Whether a residual follows amounts of the wallet, so that prices of another moment do not distort it.

        On a market of holdings it does if equity is the sum of the holdings at the reported prices.
        """
        if self.after.market not in HOLDINGS:
            return residual.by_wallet and self.after.unrealized is not None
        return all(_adds_up(account, self.noise) for account in (self.before, self.after))


def interval_between(
    before: tuple[int, AccountSnapshot, Decimal | None],
    after: tuple[int, AccountSnapshot, Decimal | None],
    profit: Decimal | None,
    filled: Collection[str],
    tolerance: Decimal,
    split: Collection[str] = (),
) -> Interval:
    """The interval between two snapshots, each with its time and its unrealised profit.

    `profit`: that of the later snapshot's positions. `filled`: the symbols with new fills. `tolerance`: n as a fraction
    of equity, without a reported wallet. `split`: the shares with a recent corporate action.
    """
    (since, one, unrealized_before), (at, other, unrealized) = before, after
    equity_before, equity_after = one.equity or ZERO, other.equity or ZERO
    equity = max(abs(equity_before), abs(equity_after))
    traded = sizes_changed(one, other)
    if traded:
        one = restated_for_splits(one, other, filled, equity * tolerance, split)
        traded = sizes_changed(one, other)
    change = None if unrealized is None or unrealized_before is None else unrealized - unrealized_before
    by_wallet = _by_wallet(one, other, change)
    tolerance = tolerance / 2 if by_wallet is not None and other.unrealized is not None else tolerance
    noise = equity * tolerance
    if by_wallet is not None and abs(by_wallet) > noise and _is_contradiction(one, other, change, by_wallet):
        by_wallet = None
    return Interval(
        one, other, since, at, equity, equity_after - equity_before, tolerance, noise, change, by_wallet,
        is_in_step(other, profit, noise), traded,
    )  # fmt: skip


def is_in_step(account: AccountSnapshot, profit: Decimal | None, noise: Decimal) -> bool | None:
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


def _adds_up(account: AccountSnapshot, noise: Decimal) -> bool:
    held = holdings_value(account)
    return held is not None and account.equity is not None and abs(account.equity - held) <= noise
