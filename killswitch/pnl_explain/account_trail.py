"""The state of one account that explains its changes of equity: its last snapshot, and the minute before it.

Times in microseconds, money as Decimal in the account's currency.
"""

from __future__ import annotations

from collections import deque
from copy import copy, deepcopy
from decimal import Decimal

from msgspec import Struct, field
from msgspec.structs import replace

from killswitch.model.instant import HOUR, SECOND
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
from killswitch.pnl_explain.interval import Interval, interval_between, is_in_step
from killswitch.pnl_explain.ledger import FillRow
from killswitch.pnl_explain.residual import ChosenResidual, Evidence, residual_of
from killswitch.pnl_explain.settlements import DroppedFlow, Settlements
from killswitch.pnl_explain.splits import may_be_share_split
from killswitch.pnl_explain.swings import Swing, Swings
from killswitch.pnl_explain.trades import ObservedTrades, Trades
from killswitch.valuation.account_facts import AccountFacts, wallets_value
from killswitch.valuation.position_measures import HOLDINGS, ZERO
from killswitch.valuation.scope_view import Instruments

CARRIED_FOR = 5 * SECOND
"""How long equity and positions may be out of step before they are used as reported."""
SPLIT_WITHIN = 7 * 24 * HOUR
"""How long before a split its corporate action may be reported."""
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
    unrealized: Decimal | None = ZERO
    """ΔU since then; None if unknown."""

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
    corporate_actions: list[tuple[str, int]] = []


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
        self._facts: AccountFacts | None = None
        """Facts of the last snapshot; None before the first one, and after a restart."""
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
        self._corporate_actions: list[tuple[str, int]] = []
        """(symbol, when it was reported) of recent corporate actions."""

    def observe(
        self,
        at: int,
        facts: AccountFacts,
        profit: Decimal | None,
        rules: Instruments,
        fills: list[FillRow],
        tolerance: Decimal,
    ) -> AccountResidual | None:
        """Observe the account's next snapshot; None for the first one, and if the parts of its equity are unknown.

        `profit`: the total profit of its positions, None if unknown. `tolerance`: n as a fraction of equity, without a
        reported wallet.
        """
        before, self._facts = self._facts, facts
        if self._forgettable:
            self._forget_before(at - MINUTE_OF_SUMS)
        self.swing, self.noise_swings, self.late_fills = ZERO, [], []
        if facts.account.corporate_actions:
            kept = [each for each in self._corporate_actions if at - each[1] <= SPLIT_WITHIN]
            self._corporate_actions = [*kept, *((each.symbol, at) for each in facts.account.corporate_actions)]
        if before is not None and not fills and profit is not None:
            quiet = self._observe_quietly(at, before, facts, profit, tolerance)
            if quiet is not None:
                return quiet
        return self._observe(at, facts.account, profit, rules, fills, tolerance)

    def _observe_quietly(
        self, at: int, before: AccountFacts, facts: AccountFacts, profit: Decimal, tolerance: Decimal
    ) -> AccountResidual | None:
        """The residual if prices alone moved the equity, which is nearly always; None if that needs a closer look.

        Nothing was traded or settled, the one wallet of the account stood still, all is of one moment, and nothing that
        an earlier snapshot left open can matter.
        """
        account, wallet, was = facts.account, facts.single_wallet, before.single_wallet
        equity, unrealized, level = account.equity, account.unrealized, self.swings.level
        if wallet is None or was is None or equity is None or unrealized is None or level is None:
            return None
        if not sane(unrealized):
            return None
        if before.account is not self.before or before.account.equity is None or self._unrealized is None:
            return None
        if not facts.is_still_since(before) or self._carried.since or self.swings.entries:
            return None
        greater, half = max(abs(equity), abs(before.account.equity)), tolerance / 2
        noise, moved, now = greater * half, wallet - was, equity - wallet - profit
        if max(abs(moved), abs(profit - unrealized), abs(now - level)) > noise or self.settlements.provisional:
            return None
        since, self.before, self.at, self._unrealized = self.at, account, at, unrealized
        self._tolerance, self.swings.level = half, now
        self._had_parts = self._was_in_step = True
        self._out_of_step_since = None
        return AccountResidual(since, at, moved, noise, ZERO, greater)

    def _observe(
        self,
        at: int,
        account: AccountSnapshot,
        profit: Decimal | None,
        rules: Instruments,
        fills: list[FillRow],
        tolerance: Decimal,
    ) -> AccountResidual | None:
        """The same for any snapshot."""
        account = self._with_missing_part(account, profit, tolerance)
        before, since, unrealized_before = self.before, self.at, self._unrealized
        known = account.unrealized is not None and sane(account.unrealized)
        unrealized = account.unrealized if known else profit
        self.before, self.at, self._unrealized = account, at, unrealized
        if before is None or before.equity is None or account.equity is None:
            self.swings.begin(account, profit)
            self._was_in_step = is_in_step(account, profit, abs(account.equity or ZERO) * tolerance / 2)
            return None
        self._had_parts = self._had_parts or unrealized_before is not None
        filled = {row.fill.symbol for row in fills}
        interval = interval_between(
            (since, before, unrealized_before), (at, account, unrealized), profit, filled, tolerance,
            [symbol for symbol, _ in self._corporate_actions],
        )  # fmt: skip
        self._tolerance = interval.tolerance
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

    def _explained(self, interval: Interval, found: ObservedTrades) -> AccountResidual | None:
        """The residual if something was traded or settled, the wallet moved, or equity and positions are out of
        step."""
        moves, at, carried = found.moves, interval.at, self._carried
        skewed = skew_of(moves.repriced, interval.skew, at - interval.since)
        evidence = self._evidence(interval, found, SLIP * moves.traded + skewed)
        residual = residual_of(evidence)
        self._remember_settlement(interval, evidence, residual, moves.settled or ())
        self._carried, self._was_in_step = NOTHING_CARRIED, interval.in_step
        amount, by_marks = residual.amount, evidence.by_marks
        if amount is None:
            return self._unknown_parts(interval)
        if evidence.waits and by_marks is not None:
            left = ZERO if evidence.whole_by_wallet is None else evidence.whole_by_wallet - amount
            still = evidence.was_in_step if not moves.traded else False
            self._carried = CarriedResidual(
                by_marks - amount, evidence.partly, carried.since or at, left, evidence.settled, still,
                evidence.unrealized_change,
            )  # fmt: skip
        # The residual by the wallet comes from one answer if that reports unrealised profit, too.
        slack = ZERO if interval.is_of_one_answer(residual) else skewed
        if amount < ZERO:
            slack += unrecorded_charges(moves.gross, moves.liquidated, interval.since, at)
        filled = {row.fill.symbol for row in (*found.timely, *found.late)}
        return AccountResidual(
            interval.since, at, amount, interval.noise, slack, interval.equity,
            vanished=interval.is_empty_of_contracts and not self.trades.is_covered(at),
            may_be_split=bool(moves.traded) and may_be_share_split(interval.before, interval.after, filled),
            others=residual.others, blind=residual.case == "settlement, positions unknown",
        )  # fmt: skip

    def _evidence(self, interval: Interval, found: ObservedTrades, bound: Decimal) -> Evidence:
        """The evidence of one interval, with what is carried; marks trades that equity includes as settled."""
        moves, noise, at, carried = found.moves, interval.noise, interval.at, self._carried
        by_marks, by_wallet, wallet_moved = interval.by_marks(found), interval.by_wallet, True
        if interval.after.market in HOLDINGS:
            by_wallet = by_wallet if by_marks is None else by_marks
        elif by_wallet is not None:
            wallet_moved = abs(by_wallet) > noise
            # What fills put into the wallet: known realised P&L less fees.
            by_wallet -= sum((row.gain for row in found.timely if row.gain is not None), ZERO)
        by_marks = None if by_marks is None else by_marks + carried.amount
        partly = not moves.is_covered or carried.partly
        unchanged = by_wallet is not None and abs(by_wallet) <= noise
        # By marks, closed positions lost money that the wallet does not show yet.
        ahead = partly and unchanged and by_marks is not None and by_marks > bound
        # A fill that the wallet does not contain yet must not make an unchanged wallet look changed.
        if interval.in_step and (moves.is_covered or (wallet_moved and not unchanged)):
            self.trades.mark_settled(at)
        change, so_far = interval.unrealized_change, carried.unrealized
        return Evidence(
            by_wallet, by_marks, noise, bound, None if change is None or so_far is None else change + so_far,
            settled=None if moves.settled is None or carried.settled is None else sum(moves.settled, carried.settled),
            carried=carried.by_wallet, dropped=self.settlements.dropped_by(at),
            traded=bool(moves.traded), partly=partly, in_step=interval.in_step,
            was_in_step=carried.was_in_step if carried.since else self._was_in_step,
            waits=(interval.in_step is False or ahead) and at - (carried.since or at) <= CARRIED_FOR,
        )  # fmt: skip

    def _remember_settlement(
        self, interval: Interval, evidence: Evidence, residual: ChosenResidual, parts: tuple[Decimal, ...]
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

    def _unknown_parts(self, interval: Interval) -> AccountResidual | None:
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

    @property
    def _forgettable(self) -> bool:
        return bool(self._noise or self._slips)

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
            self._corporate_actions,
        )  # fmt: skip

    def copied(self) -> AccountTrail:
        """A copy that may observe without effect on this one."""
        other = copy(self)
        other.trades, other.swings = deepcopy(self.trades), deepcopy(self.swings)
        other.settlements = deepcopy(self.settlements)
        other._noise, other._slips = self._noise.copy(), self._slips.copy()
        return other

    @classmethod
    def restored(cls, state: AccountTrailState) -> AccountTrail:
        """Restore a stored trail."""
        trail = cls()
        trail.before, trail.at, trail._unrealized = state.before, state.at, state.unrealized
        trail.trades, trail.swings = state.trades, state.swings
        trail._carried, trail._noise, trail._slips = state.carried, deque(state.noise), deque(state.slips)
        trail._had_parts, trail._was_in_step = state.had_parts, state.in_step
        trail.settlements, trail._corporate_actions = state.settlements, list(state.corporate_actions)
        return trail
