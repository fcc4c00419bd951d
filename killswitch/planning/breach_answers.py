"""Answers to lock breaches: a stage with `on_breach` cancels entries, and closes what others have opened.

A bot that does not obey opens again what was closed. So each answer is followed by a pause, which doubles up to a
declared length and bounds what the fight costs; above a declared exposure there is no pause, since the pause bounds
nothing but cost. Only the end of the breach or of the lock ends the answers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec import MsgspecError, Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.graph.actions.close import whole_close
from killswitch.graph.nodes import BreachRule, PolicySet, RankingRule, Stage
from killswitch.graph.unwinding import PLAIN, UnwindingRule, unwinding_named
from killswitch.model.alert import Alert, Alerts, NoticeGroup
from killswitch.model.backoff import Backoff
from killswitch.model.decision import Decision, with_effects
from killswitch.model.effects import Effect, Orders
from killswitch.model.instant import HOUR, MINUTE, SECOND
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import IN_PROGRESS, Snapshot
from killswitch.model.store import DamagedStateError
from killswitch.planning.actions.cancel_orders import cancels
from killswitch.planning.lock_breach import BreachAnswer, LockBreach
from killswitch.planning.orders.unwind import declared_unwinding, unwind
from killswitch.planning.owners import Owners, with_owners
from killswitch.planning.stage_decision import book_change, joined, new_decision
from killswitch.planning.targets.ranking import candidates, rank
from killswitch.planning.targets.selection import SelectedTarget
from killswitch.render.formats import money
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey, ScopeView
from killswitch.valuation.snapshot_facts import BookPart, SnapshotFacts

FIRST_PAUSE = SECOND
QUIET = 10 * MINUTE
"""After this time without a breach the pauses start from the first one again."""
_BY_LOSS = RankingRule("default", "normalised", (("loss", 1.0),), 0)


class Answer(Struct, frozen=True):
    """One answer: when it was decided, what its orders have cost so far, and the positions that it closes."""

    at: int
    cost: Decimal
    positions: tuple[PnlKey, ...]


class Answers(Struct, frozen=True):
    """The answers so far to the breaches of the lock of `decision` on `account`. Times in microseconds.

    `made`: id → each answer of the last hour.
    """

    decision: str
    account: str
    seen: int
    """The newest snapshot with a breach."""
    next: int
    """The next answer may be made from then on."""
    pause: int
    """The pause after the next answer."""
    made: Mapping[str, Answer] = {}

    def cost_since(self, start: int) -> Decimal:
        """The known cost of the answers since `start`."""
        return sum((each.cost for each in self.made.values() if each.at >= start), ZERO)

    def closing(self, working: Collection[str]) -> frozenset[PnlKey]:
        """The positions that answers among the decisions `working` still close."""
        return frozenset(key for id_, each in self.made.items() if id_ in working for key in each.positions)


class BreachAnswers:
    """Answers the breaches of the locks of stages, as their `on_breach` declares."""

    def __init__(self, policies: PolicySet) -> None:
        self._policies = policies
        self._stages = {
            (graph.policy, stage.name): stage
            for graph in policies.graphs
            for stage in graph.stages
            if stage.on_breach != "page"
        }
        self._answers: dict[tuple[str, str], Answers] = {}
        self._stored: tuple[Answers, ...] = ()

    @property
    def declared(self) -> dict[tuple[str, str], BreachAnswer]:
        """Policy and stage → what the stage declares, if that is more than a page."""
        return {key: stage.on_breach for key, stage in self._stages.items()}

    def restore(self, blob: bytes | None) -> None:
        """Restore the answers of an earlier run: pauses and costs go on. DamagedStateError if they are damaged."""
        try:
            stored = _DECODER.decode(blob) if blob else ()
        except (MsgspecError, ValueError) as error:
            raise DamagedStateError(f"the stored answers to breaches of locks cannot be read ({error})") from error
        self._answers, self._stored = {(each.decision, each.account): each for each in stored}, stored

    def changed(self) -> bytes | None:
        """The answers, as JSON; None if they are as at the last call."""
        answers = tuple(self._answers.values())
        if answers == self._stored:
            return None
        self._stored = answers
        return _ENCODER.encode(answers)

    def plan(
        self, breaches: Iterable[LockBreach], snapshot: Snapshot, facts: SnapshotFacts, owners: Owners
    ) -> tuple[list[Decision], Alerts]:
        """The decisions that answer the breaches of this snapshot, and a page for each fight that costs too much.

        `facts`: those of the snapshot. `owners`: an answer for a strategy takes its own part only.
        """
        now = facts.as_of
        if not (self._stages and (breaches or self._answers)):
            return [], Alerts()
        self._count_costs(snapshot, now)
        working = {closing.decision for closing in snapshot.closings if closing.status in IN_PROGRESS}
        decisions: list[Decision] = []
        dear: list[Alert] = []
        for key, found in _by_account(breaches).items():
            lock = found[0].under
            stage = self._stages.get((lock.policy, lock.stage or ""))
            if stage is None:
                continue
            answers = replace(self._answers.get(key, Answers(*key, now, now, FIRST_PAUSE)), seen=now)
            longest, expense = _longest_pause(stage.breach, answers, found[0], now)
            dear += [] if expense is None else [expense]
            decision, closing = None, answers.closing(working)  # a close continues until its target is reached
            left = [each for each in found if each.excess > ZERO and each.key not in closing]
            if left and (now >= answers.next or _is_above_ceiling(stage.breach, found)):
                decision = self._answer(stage, left, snapshot.scheduled, facts, owners)
            if decision is not None:
                decisions.append(decision)
                owners.plan(decision)
                pause = longest if expense is not None else min(answers.pause, longest)
                pauses = Backoff(FIRST_PAUSE, longest)
                made = {**answers.made, decision.id: Answer(now, ZERO, tuple(each.key for each in left))}
                answers = replace(answers, next=now + pause, pause=int(pauses.longer(pause)), made=made)
            self._answers[key] = answers
        return decisions, Alerts(tuple(dear))

    def _count_costs(self, snapshot: Snapshot, now: int) -> None:
        """Add what closings have cost so far; forget fights that have been quiet."""
        paid = {closing.decision: closing.cost for closing in snapshot.closings if closing.cost is not None}
        self._answers = {
            key: replace(
                each,
                made={
                    id_: replace(answer, cost=paid.get(id_, answer.cost))
                    for id_, answer in each.made.items()
                    if now - answer.at < HOUR
                },
            )
            for key, each in self._answers.items()
            if now - each.seen < QUIET or each.cost_since(now - HOUR)
        }
        for key, each in self._answers.items():
            if now - each.seen >= QUIET:
                self._answers[key] = replace(each, next=now, pause=FIRST_PAUSE)

    def _answer(
        self, stage: Stage, found: Sequence[LockBreach], scheduled: bool, facts: SnapshotFacts, owners: Owners
    ) -> Decision | None:
        """Cancel the account's entries, and close what others opened if the stage declares that; None: nothing to do.

        An account executor cancels entries before it closes, so that no order of theirs fills in between.
        """
        lock, account, strategy = found[0].under, found[0].account, found[0].strategy
        part = None if strategy is None else BookPart("strategy", strategy)
        around = None if part is None else facts
        view = ScopeView(facts.as_of, scheduled, (account,), facts.rules, None, around=around, part=part)
        opened = {each.key: each.excess for each in found} if stage.on_breach == "close" else {}
        targets = [
            SelectedTarget(each, each.candidate.position.contracts - opened[each.candidate.key])
            for each in rank(_BY_LOSS, candidates(view, None))
            if each.candidate.key in opened
        ]
        rule = self._unwinding_of(stage)
        limited = owners.limited(view, targets)
        unwound = unwind(view, limited.targets, rule)
        orders = Orders(with_owners(unwound.intents, limited.closable))
        effects: tuple[Effect, ...] = (orders, cancels(view, "entry"))
        what = ", ".join(f"{each.excess} {each.row.symbol} {each.row.side}" for each in found)
        record = replace(
            new_decision(
                self._policies, lock.policy, lock.scope, f"breach/{lock.decision}/{account.account}", facts.as_of
            ),
            kind="breach",
            stage=stage.name,
            level=stage.level,
            previous_level=stage.level,
            book=book_change(view, unwound.left),
            reason=joined(
                f"lock breached: {strategy or 'others'} opened {what} on {account.account}",
                *limited.remarks,
                *unwound.remarks,
            ),
            unwinding=declared_unwinding(rule),
        )
        decision = with_effects(record, effects)
        return decision if decision.effects else None

    def _unwinding_of(self, stage: Stage) -> UnwindingRule:
        """The unwinding of the stage's own close; without one, market orders."""
        close = whole_close(stage.actions, ())
        return PLAIN if close is None else unwinding_named(close.unwinding, self._policies.unwindings)


def _by_account(breaches: Iterable[LockBreach]) -> dict[tuple[str, str], list[LockBreach]]:
    """(decision of the lock, account) → its breaches."""
    found: dict[tuple[str, str], list[LockBreach]] = {}
    for each in breaches:
        found.setdefault((each.under.decision, each.account.account), []).append(each)
    return found


def _is_above_ceiling(rule: BreachRule | None, found: Sequence[LockBreach]) -> bool:
    """Whether what others opened is above the declared fraction of the equity; true while either is unknown."""
    if rule is None:
        return False
    equity, values = found[0].account.equity, [each.value(each.excess) for each in found]
    known = [value for value in values if value is not None]
    if equity is None or not sane(equity) or equity <= ZERO or len(known) < len(values):
        return True
    return bool(sum(known, ZERO) > rule.ceiling * equity)


def _longest_pause(rule: BreachRule | None, answers: Answers, breach: LockBreach, now: int) -> tuple[int, Alert | None]:
    """The longest pause between two answers, and a page if those of the last hour have cost more than declared."""
    if rule is None:
        return 10 * SECOND, None
    equity, cost = breach.account.equity, answers.cost_since(now - HOUR)
    if equity is None or cost <= rule.cost_per_hour * max(equity, ZERO):
        return rule.pause, None
    name, currency = breach.account.account, breach.account.currency
    text = (
        f"closing what others open on {name} under its lock has cost {money(cost, currency)} within an hour, more than "
        f"declared; it continues with the longest pause. Stop the bot"
    )
    group = NoticeGroup(breach.under.policy, breach.under.scope)
    return rule.pause, Alert(f"breach-cost/{name}", "page", text, group, measure=None)


_DECODER = msgjson.Decoder(tuple[Answers, ...])
_ENCODER = msgjson.Encoder(decimal_format="string")
