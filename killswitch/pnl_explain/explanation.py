"""Explanation of a scope's changes of equity: ledger rows are matched with what prices and trades leave unexplained.

Each account is explained separately: see `decomposition` for the parts and `classification` for the rule. The results
are transfers, for which units are issued, and changes that wait until their cause is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.instant import HOUR, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.words import ChangeCause
from killswitch.pnl_explain.account_trail import AccountResidual, AccountTrail, AccountTrailState
from killswitch.pnl_explain.classification import (
    EARLY,
    FALLS,
    FALLS_WITHIN,
    LAG,
    NETTED_WITHIN,
    SETTLED_AFTER,
    is_about_amount,
    is_at_about,
    lag_of,
)
from killswitch.pnl_explain.ledger import FillRow, ScopeLedger, ScopeLedgerState, ahead_of_venue
from killswitch.pnl_explain.ledger import LedgerRow as LedgerRow
from killswitch.pnl_explain.pending_changes import ResolvedChange, UnexplainedChange, UnexplainedChanges
from killswitch.pnl_explain.settlements import SettlementRow
from killswitch.pnl_explain.swings import Swing
from killswitch.pnl_explain.unavailable_accounts import UnsettledChanges
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import ScopeView

Arrival = tuple[int, str, Decimal]
"""Money that arrived in an account: the time, the account, and the amount in the scope's currency."""
DELAYED_FLOWS = HOUR
"""The age of known flows, before a change, from which flows are not waited for."""
SILENT_AFTER = 5 * SECOND
"""The time after which a silent ledger no longer delays what can be reversed."""


class EquityTerms(Struct, frozen=True):
    """How the policy evaluates equity: see `EquityRule` of the graph (microseconds, fraction).

    `flow_grace`: how long a pending change waits for a ledger that does not answer. `closes`: whether an unexplained
    fall counts as a loss once the ledger is known past it.
    """

    max_gap: int
    tolerance: float
    flow_grace: int
    closes: bool = False


class ChangeEvent(Struct, frozen=True):
    """An event of an unexplained change; `amount` is in the scope's currency.

    `appeared`: it is new, and `pending` or treated as a transfer. `explained`: a ledger row explains it. `lost`: it
    counts as profit or loss from now on. `anew`: a deposit into a wiped-out account starts a new series. `change`: the
    id of a change that appeared or is lost.
    """

    kind: Literal["appeared", "explained", "lost", "anew"]
    amount: Decimal
    pending: bool = False
    change: str | None = None


class ExplainedChanges(Struct):
    """The result of one observation: `flow` to issue units for, corrections of the past, and new changes."""

    flow: Decimal = ZERO
    resolved: list[ResolvedChange] = []
    appeared: list[UnexplainedChange] = []
    events: list[ChangeEvent] = []


NO_CHANGES = ExplainedChanges()
"""Only prices moved the equity."""


class Explanation:
    """The state that explains a scope's changes of equity."""

    def __init__(self, terms: EquityTerms) -> None:
        self._terms = terms
        self._tolerance = Decimal(str(terms.tolerance))
        self.ledger = ScopeLedger()
        self.changes = UnexplainedChanges()
        self.trails: dict[str, AccountTrail] = {}
        self.complete = True
        """Whether the last observation reported the parts of every account's equity."""
        self._arrived: list[Arrival] = []

    def explain(self, view: ScopeView, profits: dict[str, Decimal | None], before: Decimal | None) -> ExplainedChanges:
        """Explain the accounts' changes since their last usable snapshots.

        `profits`: of each account's positions together. `before`: the scope's equity at its last observation.
        """
        found = ExplainedChanges()
        self.complete = True
        for facts in view.facts:
            account, name = facts.account, facts.name
            trail = self.trails.get(name)
            if trail is None:
                trail = self.trails[name] = AccountTrail()
            first = trail.before is None
            fills = self.ledger.fills_of(name) if self.ledger.fills else []
            residual = trail.observe(view.as_of, facts, profits[name], view.instruments, fills, self._tolerance)
            if account.corporate_actions and self.changes.all:
                self.changes.settle_splits(name)
            for row in trail.late_fills:
                found.resolved += self._late_fill(trail, row, account.currency)
            if trail.swing:
                found.flow += trail.swing * view.rate(name)
                corrections = _swing_corrections(trail.noise_swings, view.rate(name), before)
                for each in corrections:
                    self.changes.divide_peaks_since(each.at, each.factor)
                found.resolved += corrections
            rows = self._unsettled_rows(name, trail, residual) if self.ledger.rows else []
            if residual is None:
                self.complete = self.complete and first
                found.flow += sum((row.amount for row in rows if row.moved), ZERO) * view.rate(name)
                self._drop(rows)
                continue
            self.complete = self.complete and residual.complete
            # What empties one account of several may be a liquidation, on which the others would be closed.
            if residual.vanished and len(view.accounts) > 1 and not self._terms.closes:
                residual = replace(residual, vanished=False)
            if residual.vanished:
                self.changes.mark_vanished(name, residual.at)
            if rows or residual.amount:
                self._match_rows(trail, name, residual, rows, found, view.rate(name))
        return found

    def _unsettled_rows(self, account: str, trail: AccountTrail, residual: AccountResidual | None) -> list[LedgerRow]:
        """The account's waiting rows, without those that settlements use up, which are dropped.

        A transfer is that of a settlement only if no residual and no change is about as large: where a loss is settled
        and as much is withdrawn, the withdrawal explains the change, and the other row the settlement.
        """
        rows = [row for row in self.ledger.rows if row.account == account]
        if not rows or not trail.settlements.recent:
            return rows
        open_to = [row for row in rows if not row.moved or not self._explains_change(row, residual)]
        # A row of profit that is exactly as large as a change is that of a settlement only if it is as exactly so.
        found = [SettlementRow(it.at, it.amount, it.moved or self._explains_change(it, residual)) for it in open_to]
        used = trail.settlements.use_up(found)
        self._drop(open_to[i] for i in used)
        return [row for row in rows if not any(row is open_to[i] for i in used)]

    def _explains_change(self, row: LedgerRow, residual: AccountResidual | None) -> bool:
        noise = ZERO if residual is None else residual.noise
        if residual is not None and is_about_amount(row.amount, residual.amount, noise):
            return True
        if residual is not None and residual.blind and is_at_about(row.at, residual.since, residual.at):
            return any(is_about_amount(row.amount, each, noise) for each in residual.others)
        return self.changes.has_match(row.account, row.amount, row.at, noise)

    def settle(self, view: ScopeView) -> ExplainedChanges:
        """Resolve the changes whose cause is known by now, including new ones."""
        found = ExplainedChanges()
        if self.changes.all or self.ledger.rows:
            self._settle(view, found)
            self._drop_unmatched_rows(view, found)
        return found

    def settle_available(self, view: ScopeView) -> ExplainedChanges:
        """Resolve changes of the available accounts in `view` while others are unavailable.

        Their rows are matched with earlier changes; rows of later changes wait until all accounts are available.
        """
        found = ExplainedChanges()
        if not self.changes.all:
            return found
        readable = {account.account for account in view.accounts}
        for row in [each for each in self.ledger.rows if each.account in readable]:
            trail = self.trails.get(row.account)
            if trail is not None and trail.before is not None and trail.before.equity is not None:
                self._match_earlier_changes(row, trail.noise_of(trail.before.equity), found)
        self._settle(view, found)
        return found

    def restate(self, id_: str, cause: ChangeCause) -> ExplainedChanges:
        """Settle the change `id_` finally as an operator knows its cause; nothing if it is not kept."""
        change = self.changes.find(id_)
        return ExplainedChanges(resolved=[] if change is None else self.changes.restate(change, cause))

    def unsettled(self, view: ScopeView, profits: dict[str, Decimal | None]) -> dict[str, UnsettledChanges]:
        """The transfers and unexplained changes of each account since its last known equity; changes no state.

        For available accounts while others of the scope are unavailable.
        """
        found: dict[str, UnsettledChanges] = {}
        for facts in view.facts:
            account = facts.account
            trail = self.trails.get(facts.name, AccountTrail()).copied()
            fills = [row for row in self.ledger.fills if row.account == facts.name]
            residual = trail.observe(view.as_of, facts, profits[facts.name], view.instruments, fills, self._tolerance)
            rows = [row for row in self.ledger.rows if row.account == facts.name]
            used = trail.settlements.use_up([SettlementRow(row.at, row.amount, row.moved) for row in rows])
            rows = [row for i, row in enumerate(rows) if i not in used]
            moved = sum((row.amount for row in rows if row.moved), ZERO)
            left = ZERO if residual is None else residual.amount - sum((row.amount for row in rows), ZERO)
            found[account.account] = UnsettledChanges(
                moved, ZERO if residual is None or abs(left) <= residual.noise else left
            )
        return found

    def _match_rows(
        self,
        trail: AccountTrail,
        account: str,
        residual: AccountResidual,
        rows: list[LedgerRow],
        found: ExplainedChanges,
        rate: Decimal,
    ) -> None:
        """Match the rows with the residual, then with earlier changes, and classify the rest."""
        residual = _as_rows_show(residual, rows)
        left = residual.amount
        timely = self._flows_of_residual(trail, account, residual, rows)
        for row in timely:
            left -= row.amount
            found.flow += row.amount * rate
            self._record_arrival(residual.at, account, row.amount * rate)
        self._drop(timely)
        others = [row for row in rows if row not in timely] if timely else rows
        for row in sorted(others, key=lambda it: not is_about_amount(it.amount, left, residual.noise)):
            if row.repeated and not is_at_about(row.at, residual.since, residual.at):
                if self.changes.has_match(account, row.amount, row.at, residual.noise):
                    self._match_earlier_changes(row, residual.noise, found)
                continue
            part = _part(row, left, residual)
            left -= part
            found.flow += part * rate if row.moved else ZERO
            if part == row.amount or is_about_amount(row.amount, part, residual.noise):
                self._record_arrival(residual.at, account, part * rate)
                self._drop([row])
                continue
            row.amount -= part
            self._match_earlier_changes(row, residual.noise, found)
        kind = trail.classify(left, residual)
        change = UnexplainedChange(
            residual.at, left, 0.0, 0.0, 0.0, account=account, since=residual.since, equity=residual.equity, rate=rate
        )
        if kind in ("trade", "money"):
            change.slack = residual.slack
            change.vanished = residual.vanished and left < ZERO
            change.may_be_split = residual.may_be_split
            pending = kind == "trade" or change.vanished or change.may_be_split
            change.kind = "trade" if pending or self._may_be_loss(change) else "money"
            found.appeared.append(change)
            self._record_arrival(residual.at, account, left * rate)
        elif kind == "slip" and left:
            # It counts at once, and is kept in case a later row identifies it as a transfer.
            change.lost = True
            found.appeared.append(change)

    def _match_earlier_changes(self, row: LedgerRow, noise: Decimal, found: ExplainedChanges) -> None:
        """Match a row with earlier changes."""
        resolved, row.amount = self.changes.explain(row.account, row.amount, row.at, noise, moved=row.moved)
        found.resolved += resolved
        found.events += [ChangeEvent("explained", it.amount) for it in resolved]
        if row.amount == ZERO:
            self._drop([row])

    def _flows_of_residual(
        self, trail: AccountTrail, account: str, residual: AccountResidual, rows: list[LedgerRow]
    ) -> list[LedgerRow]:
        """The flows dated inside the interval if all of them belong to its residual, else none.

        They do if they sum up to it, or if they hide a fall that trades without fills may have caused: a deposit must
        not hide a loss.
        """
        timely = [it for it in rows if it.moved and is_at_about(it.at, residual.since, residual.at)]
        timely = [it for it in timely if not self.changes.has_match(account, it.amount, it.at, residual.noise)]
        if not timely:
            return []
        left = residual.amount - sum((it.amount for it in timely), ZERO)
        if abs(left) <= residual.noise:
            return timely
        may_be_lost = (
            left < min(residual.amount, -residual.noise) and -left <= trail.trades.bound(residual.at) + residual.slack
        )
        return timely if may_be_lost else []

    def _late_fill(self, trail: AccountTrail, row: FillRow, currency: str) -> list[ResolvedChange]:
        """Explain an earlier change by a late fill: against the mark of its trade, else by its realised P&L."""
        trade = trail.trades.match_late_fill(row, currency)
        if trade is not None:
            return self.changes.match_late_fill(row.account, *trade)
        if row.gain is None:
            return []
        return self.changes.explain(row.account, row.gain, to_micros(row.fill.at), ZERO, moved=False)[0]

    def _record_arrival(self, at: int, account: str, amount: Decimal) -> None:
        if amount > ZERO:
            self._arrived.append((at, account, amount))

    def _drop(self, rows: Iterable[LedgerRow]) -> None:
        dropped = {id(row) for row in rows}
        self.ledger.rows = [row for row in self.ledger.rows if id(row) not in dropped]

    # Resolving changes

    def _settle(self, view: ScopeView, found: ExplainedChanges) -> None:
        now = view.as_of
        self._arrived = [each for each in self._arrived if now - each[0] <= LAG]
        accounts = {account.account: account for account in view.accounts}
        for change in self.changes.unexplained:
            if change.account in self.trails:
                self._reclassify(change, now, found)
        self._reclassify_series_of_falls(now, found)
        for change in self.changes.open:
            if change.kind == "trade":
                self.changes.net(change, NETTED_WITHIN)
        for change in self.changes.suspects(now):
            account = accounts.get(change.account)
            if account is not None:
                self._resolve(change, account, now, found)
        self.changes.expire(now)

    def _reclassify(self, change: UnexplainedChange, now: int, found: ExplainedChanges) -> None:
        """Reclassify a change by trades and fills that were reported after it."""
        if change.moved and now - change.at > EARLY:
            return
        trail = self.trails[change.account]
        size = abs(change.amount)
        bounded = size <= trail.trades.bound(change.at) + change.slack
        bounded = bounded or change.may_be_split or (change.vanished and not trail.trades.is_covered(change.at))
        if change.moved:
            if bounded:
                change.kind = "trade"
                found.resolved.append(self.changes.reopen(change))
        elif size <= trail.noise_of(change.equity) or trail.is_late_slip(change.amount, change.equity, change.at):
            change.lost = True
        elif change.in_transit:
            change.kind = "money"
        else:
            change.kind = "trade" if bounded or self._may_be_loss(change) else "money"

    def _may_be_loss(self, change: UnexplainedChange) -> bool:
        """Whether it may be a loss although no trade explains it: by the policy's choice, or as one of many falls."""
        return change.amount < ZERO and (self._terms.closes or change.hurried)

    def _reclassify_series_of_falls(self, now: int, found: ExplainedChanges) -> None:
        """Treat a series of falls without rises as unreported trades."""
        recent = [each for each in self.changes.all if now - each.at <= FALLS_WITHIN and _is_without_trade(each)]
        for account in dict.fromkeys(each.account for each in recent):
            own = [each for each in recent if each.account == account]
            falls = [each for each in own if each.amount < ZERO]
            risen = sum((each.amount for each in own if each.amount > ZERO), ZERO)
            fallen = -sum((each.amount for each in falls), ZERO)
            if len(falls) < FALLS or risen * 2 >= fallen:
                continue
            for change in falls:
                if change.lost or change.hurried:
                    continue
                change.kind, change.hurried = "trade", True
                if change.moved:
                    found.resolved.append(self.changes.reopen(change))

    def _resolve(self, change: UnexplainedChange, account: AccountSnapshot, now: int, found: ExplainedChanges) -> None:
        """Resolve an open change once enough is known."""
        age = now - change.at
        proven = rows_known_until(account, change, ahead_of_venue(account, now))
        if change.unanswered_since is None and ((proven is not None and proven >= change.at) or age >= SILENT_AFTER):
            change.unanswered_since = now
        if change.moved:
            return
        if change.kind == "money":
            if age >= SETTLED_AFTER:
                found.resolved.append(self.changes.settle_as_flow(change))
            return
        if change.amount < ZERO and self._is_in_transit(change):
            change.kind, change.in_transit = "money", True
            return
        lag = lag_of(change.amount, change.equity, account.row_lag_s, hurried=change.hurried)
        known = proven is not None and proven >= change.at + lag
        silent = age >= self._terms.flow_grace and (proven is None or now - proven >= self._terms.flow_grace)
        if known or silent:
            change.lost = True
            found.events.append(ChangeEvent("lost", -change.converted_amount, change=change.id))

    def _is_in_transit(self, change: UnexplainedChange) -> bool:
        """Whether a similar amount arrived in another account of the scope at about the same time."""
        return any(
            account != change.account
            and abs(at - change.at) <= LAG
            and ZERO <= -change.converted_amount - amount <= amount / 100
            for at, account, amount in self._arrived
        )

    def _drop_unmatched_rows(self, view: ScopeView, found: ExplainedChanges) -> None:
        """Drop rows without a change: small ones were counted as noise, others never affected this equity."""
        late = [row for row in self.ledger.rows if view.as_of - row.seen > EARLY]
        for row in late:
            trail = self.trails.get(row.account)
            own = None if trail is None or trail.before is None else trail.before.equity
            if not row.moved or own is None or abs(row.amount) * 500 > own or view.equity is None:
                continue
            amount_in_scope = row.amount * view.rate(row.account)
            before = view.equity - amount_in_scope
            if before > ZERO:
                factor = float(view.equity / before)
                self.changes.divide_peaks_since(row.at, factor)
                found.resolved.append(ResolvedChange(row.at, amount_in_scope, factor, 0.0))
        self._drop(late)

    # Serialising

    def retain_members(self, members: frozenset[str]) -> None:
        """Restrict the scope to `members`, and drop open changes."""
        self.trails = {name: trail for name, trail in self.trails.items() if name in members}
        self.ledger.drop()
        self.changes = UnexplainedChanges()
        self._arrived = []

    def draw_out(self, names: frozenset[str]) -> None:
        """Restrict the scope to accounts other than `names`, with the open changes of the others."""
        self.trails = {name: trail for name, trail in self.trails.items() if name not in names}
        self.ledger.rows = [row for row in self.ledger.rows if row.account not in names]
        self.ledger.fills = [row for row in self.ledger.fills if row.account not in names]
        self.changes.all = [change for change in self.changes.all if change.account not in names]
        self._arrived = [each for each in self._arrived if each[1] not in names]

    def state(self) -> tuple[ScopeLedgerState, dict[str, AccountTrailState], list[Arrival]]:
        """The state to store, without the changes."""
        trails = {name: state for name, trail in self.trails.items() if (state := trail.state()) is not None}
        return self.ledger.state(), trails, self._arrived

    def restore(
        self,
        ledger: ScopeLedgerState,
        trails: dict[str, AccountTrailState],
        changes: UnexplainedChanges,
        arrived: Iterable[Arrival] = (),
    ) -> None:
        """Restore a stored explanation."""
        self.ledger.restore(ledger)
        self.trails = {name: AccountTrail.restored(state) for name, state in trails.items()}
        self.changes, self._arrived = changes, list(arrived)


def _is_without_trade(change: UnexplainedChange) -> bool:
    """Whether no trade explains a change: it is treated as a transfer, or was until many others followed."""
    return not change.accepted and (change.hurried or (change.kind == "money" and not change.lost))


def _as_rows_show(residual: AccountResidual, rows: Iterable[LedgerRow]) -> AccountResidual:
    """The residual with the other amount if the transfers of its interval add up to that, and not to its own."""
    about = [row.amount for row in rows if row.moved and is_at_about(row.at, residual.since, residual.at)]
    moved = sum(about, ZERO)
    if not about or abs(moved - residual.amount) <= residual.noise:
        return residual
    shown = next((each for each in residual.others if abs(moved - each) <= residual.noise), None)
    return residual if shown is None else replace(residual, amount=shown)


def _part(row: LedgerRow, left: Decimal, residual: AccountResidual) -> Decimal:
    """The part of the residual that the row explains: the whole row if the amounts are about equal."""
    if is_about_amount(row.amount, left, residual.noise):
        return row.amount
    if abs(left) <= residual.noise or (row.amount > ZERO) != (left > ZERO):
        return ZERO
    return min(row.amount, left, key=abs) if is_at_about(row.at, residual.since, residual.at) else ZERO


def rows_known_until(account: AccountSnapshot, change: UnexplainedChange, ahead: int) -> int | None:
    """The time up to which fills and flows are known, on our clock, `ahead` of the venue's; None if unknown.

    A venue that reports flows hours late, such as Alpaca, shows none of the change's time within any grace, so waiting
    is useless. There, only fills count for a change that trades may explain.
    """
    if account.fills_as_of is None or account.flows_as_of is None:
        return None
    fills, flows = to_micros(account.fills_as_of) + ahead, to_micros(account.flows_as_of) + ahead
    return fills if change.kind == "trade" and flows < change.at - DELAYED_FLOWS else min(fills, flows)


def _swing_corrections(swings: list[Swing], rate: Decimal, equity: Decimal | None) -> list[ResolvedChange]:
    """The corrections that remove earlier swings of an account from profit and loss. `equity` is the scope's."""
    if equity is None or equity <= ZERO:
        return []
    amounts = [(it.at, it.amount * rate) for it in swings]
    return [
        ResolvedChange(at, amount_in_scope, float(1 + amount_in_scope / equity), 0.0)
        for at, amount_in_scope in amounts
        if -amount_in_scope < equity
    ]
