"""Answers to lock breaches: a stage with `on_breach` cancels entries, and closes what others have opened.

A bot that does not obey opens again what was closed. So each answer is followed by a pause, which doubles up to a
declared length and bounds what the fight costs; above a declared exposure there is no pause, since the pause bounds
nothing but cost. Only the end of the breach or of the lock ends the answers.

From the second answer for a position on it is a fight, and one alert in place of a page for each wave: at its start,
after times that grow by three, when it first exceeds the ceiling, and at its end with what it took. What a fight is not
about yet, such as another position, is paged as before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from msgspec import MsgspecError, Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.graph.actions.close import whole_close
from killswitch.graph.nodes import BreachRule, PolicySet, RankingRule, Stage
from killswitch.graph.unwinding import PLAIN, UnwindingRule
from killswitch.model.alert import Alert, Alerts, NoticeGroup
from killswitch.model.backoff import Backoff
from killswitch.model.decision import Decision, with_effects
from killswitch.model.effects import Effect, Orders
from killswitch.model.instant import HOUR, MINUTE, SECOND
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import IN_PROGRESS, Snapshot, WrittenLock
from killswitch.model.store import DamagedStateError
from killswitch.planning.actions.cancel_orders import cancels
from killswitch.planning.lock_breach import BreachAnswer, LockBreach, breach_key
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
FIRST_PROGRESS = 5 * MINUTE
"""A fight is notified again after this time, and then after three times as long as before."""
MOST_UNSEEN = 100
_BY_LOSS = RankingRule("default", "normalised", (("loss", 1.0),), 0)


class Answer(Struct, frozen=True):
    """One answer: when it was decided, what its orders have cost so far, and the positions that it closes."""

    at: int
    cost: Decimal
    positions: tuple[PnlKey, ...]


class Fight(Struct, frozen=True):
    """The answers on an account since the last quiet time, in the words of its notices. Times in microseconds.

    `begun`, `last`: the first and the newest answer. `orders`: the closing orders of all `answers`. `paid`: the cost of
    those that are no longer in `Answers.made`. `positions`: what was taken back, and when first. `is_repeated`: whether
    one of them was opened again. `is_above`: whether it ever was above the ceiling.
    """

    policy: str
    scope: str
    currency: str
    begun: int
    last: int
    answers: int = 0
    orders: int = 0
    paid: Decimal = ZERO
    positions: tuple[tuple[PnlKey, int], ...] = ()
    is_repeated: bool = False
    is_above: bool = False
    strategy: str | None = None
    """The strategy whose lock it is; None: the account's, or a symbol's."""

    def is_on(self, now: int, pause: int) -> bool:
        """Whether it goes on: the next answer may be a long pause away."""
        return self.is_repeated and now - self.last < max(QUIET, 2 * pause)

    def progress(self, now: int) -> int:
        """How many of the growing times since its begin have passed."""
        steps, due = 0, FIRST_PROGRESS
        while now - self.begun >= due:
            steps, due = steps + 1, 3 * due
        return steps

    def alert_keys(self, now: int) -> tuple[str, ...]:
        """The keys of the breaches that it is about: not those of its newest answer, which are paged first."""
        return tuple(breach_key(key, self.strategy) for key, first in self.positions if first < now)

    def with_answer(self, now: int, orders: int, positions: Sequence[PnlKey], *, is_above: bool) -> Fight:
        """The fight after one more answer."""
        before = dict(self.positions)
        known = {key: before.get(key, now) for key in (*before, *positions)}
        return replace(
            self,
            last=now,
            answers=self.answers + 1,
            orders=self.orders + orders,
            positions=tuple(known.items()),
            is_repeated=self.is_repeated or any(key in before for key in positions),
            is_above=self.is_above or is_above,
        )


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
    fight: Fight | None = None
    """Since the last quiet time; None before the first answer."""

    def cost_since(self, start: int) -> Decimal:
        """The known cost of the answers since `start`."""
        return sum((each.cost for each in self.made.values() if each.at >= start), ZERO)

    def is_fighting(self, now: int) -> bool:
        """Whether others open again what was taken back."""
        return self.fight is not None and self.fight.is_on(now, self.pause)

    @property
    def cost(self) -> Decimal:
        """The known cost of the fight."""
        return (ZERO if self.fight is None else self.fight.paid) + self.cost_since(0)

    def closing(self, working: Collection[str]) -> frozenset[PnlKey]:
        """The positions that answers among the decisions `working` still close."""
        return frozenset(key for id_, each in self.made.items() if id_ in working for key in each.positions)


class DeclaredAnswer(Struct, frozen=True):
    """What a stage declares about breaches of its lock. `unwinding`: that of its close; None: market orders.

    `policy` and `stage`: as they are called now.
    """

    policy: str
    stage: str
    level: int
    on_breach: BreachAnswer
    limits: BreachRule | None
    unwinding: str | None

    def joined(self, after: DeclaredAnswer | None) -> DeclaredAnswer:
        """The stricter of this one, which was declared when the lock was written, and what is declared now (R2)."""
        if after is None:
            return self
        limits = [each.limits for each in (self, after) if each.limits is not None]
        return replace(
            after,
            on_breach=max(self.on_breach, after.on_breach, key=_STRICTNESS.index),
            limits=None if not limits else BreachRule(
                ceiling=min(each.ceiling for each in limits),
                cost_per_hour=max(each.cost_per_hour for each in limits),
                pause=min(each.pause for each in limits),
            ),
        )  # fmt: skip


_STRICTNESS: Final[tuple[BreachAnswer, ...]] = ("page", "cancel", "close")


class StoredAnswers(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the store has: the answers so far, and decision of a lock → what its stage declared when it was written."""

    answers: tuple[Answers, ...] = ()
    locks: dict[str, DeclaredAnswer] = {}


class BreachAnswers:
    """Answers the breaches of the locks of stages, as their `on_breach` declares."""

    def __init__(self, policies: PolicySet) -> None:
        self._policies = policies
        self._declared = _declared(policies)
        self._fired: dict[str, DeclaredAnswer] = {}
        """Decision → what its stage declared, of the newest firings, whose locks are not seen yet."""
        self._locks: dict[str, DeclaredAnswer] = {}
        self._answers: dict[tuple[str, str], Answers] = {}
        self._stored = StoredAnswers()

    def reload(self, policies: PolicySet, renamed: Mapping[tuple[str, str], tuple[str, str]]) -> None:
        """Answer by the next set; the breaches of locks in force no less than was declared when they were written.

        `renamed`: former policy and stage → policy and stage.
        """
        self._policies, self._declared = policies, _declared(policies)
        for known in (self._fired, self._locks):
            for decision, each in known.items():
                policy, stage = renamed.get((each.policy, each.stage), (each.policy, each.stage))
                known[decision] = replace(each, policy=policy, stage=stage)

    def acted(self, decisions: Iterable[Decision]) -> None:
        """Note what the stages declare that have just fired: another set may be in force when their locks are seen."""
        for each in decisions:
            declared = self._declared.get((each.policy, each.stage or ""))
            if declared is not None:
                self._fired[each.id] = declared
        for decision in [*self._fired][:-MOST_UNSEEN]:
            del self._fired[decision]

    def observe(self, locks: Collection[WrittenLock]) -> None:
        """Note what the stages of new locks declare, and forget the locks that are over."""
        if not (locks or self._locks):
            return
        found = {}
        for lock in locks:
            declared = self._locks.get(lock.decision) or self._fired.pop(lock.decision, None)
            if declared is None:
                declared = self._declared.get((lock.policy, lock.stage or ""))
            if declared is not None:
                found[lock.decision] = declared
        self._locks = found

    def answer_to(self, lock: WrittenLock) -> DeclaredAnswer | None:
        """What answers a breach of this lock, if that is more than a page."""
        noted = self._locks.get(lock.decision)
        if noted is None:
            return None
        found = noted.joined(self._declared.get((noted.policy, noted.stage)))
        return None if found.on_breach == "page" else found

    def breach_answer(self, lock: WrittenLock) -> BreachAnswer:
        """What a breach of this lock is answered with."""
        found = self.answer_to(lock)
        return "page" if found is None else found.on_breach

    def restore(self, blob: bytes | None) -> None:
        """Restore the answers of an earlier run: pauses and costs go on. DamagedStateError if they are damaged."""
        try:
            stored = _DECODER.decode(blob) if blob else ()
        except (MsgspecError, ValueError) as error:
            raise DamagedStateError(f"the stored answers to breaches of locks cannot be read ({error})") from error
        self._stored = stored if isinstance(stored, StoredAnswers) else StoredAnswers(stored)
        self._answers = {(each.decision, each.account): each for each in self._stored.answers}
        self._locks = dict(self._stored.locks)

    def changed(self) -> bytes | None:
        """The answers, as JSON; None if they are as at the last call."""
        locks = {decision: each for decision, each in self._locks.items() if each.on_breach != "page"}
        found = StoredAnswers(tuple(self._answers.values()), locks)
        if found == self._stored:
            return None
        self._stored = found
        return _ENCODER.encode(found)

    def plan(
        self, breaches: Iterable[LockBreach], snapshot: Snapshot, facts: SnapshotFacts, owners: Owners
    ) -> tuple[list[Decision], Alerts]:
        """The decisions that answer the breaches of this snapshot, and a page for each fight that costs too much.

        `facts`: those of the snapshot. `owners`: an answer for a strategy takes its own part only.
        """
        now = facts.as_of
        if not (breaches or self._answers):
            return [], Alerts()
        self._count_costs(snapshot, now)
        working = {closing.decision for closing in snapshot.closings if closing.status in IN_PROGRESS}
        decisions: list[Decision] = []
        dear: list[Alert] = []
        for key, found in _by_account(breaches).items():
            lock = found[0].under
            declared = self.answer_to(lock)
            if declared is None:
                continue
            answers = replace(self._answers.get(key, Answers(*key, now, now, FIRST_PAUSE)), seen=now)
            longest, expense = _longest_pause(declared.limits, answers, found[0], now)
            dear += [] if expense is None else [expense]
            decision, orders = None, 0
            closing = answers.closing(working)  # a close continues until its target is reached
            left = [each for each in found if each.excess > ZERO and each.key not in closing]
            is_above = _is_above_ceiling(declared.limits, found)
            if left and (now >= answers.next or is_above):
                decision, orders = self._answer(declared, left, snapshot.scheduled, facts, owners)
            if decision is not None:
                decisions.append(decision)
                owners.plan(decision)
                pause = longest if expense is not None else min(answers.pause, longest)
                pauses = Backoff(FIRST_PAUSE, longest)
                made = {**answers.made, decision.id: Answer(now, ZERO, tuple(each.key for each in left))}
                answers = replace(answers, next=now + pause, pause=int(pauses.longer(pause)), made=made)
                if declared.on_breach == "close":
                    currency, strategy = found[0].account.currency, found[0].strategy
                    fight = answers.fight or Fight(lock.policy, lock.scope, currency, now, now, strategy=strategy)
                    keys = [each.key for each in left]
                    fight = fight.with_answer(now, orders, keys, is_above=is_above)
                    answers = replace(answers, fight=fight)
            self._answers[key] = answers
        fights = (fight_alert(each, now) for each in self._answers.values())
        return decisions, Alerts((*dear, *(each for each in fights if each is not None)))

    def is_fighting(self, now: int) -> bool:
        """Whether a fight goes on, so that its alert does."""
        return any(each.is_fighting(now) for each in self._answers.values())

    def in_fights(self, now: int) -> frozenset[str]:
        """The keys of the alerts of breaches that a fight is about: its own alert is in their place."""
        return frozenset(
            key
            for each in self._answers.values()
            if each.fight is not None and each.is_fighting(now)
            for key in each.fight.alert_keys(now)
        )

    def _count_costs(self, snapshot: Snapshot, now: int) -> None:
        """Add what closings have cost so far; forget fights that have been quiet."""
        self._answers = {key: _without_old(each, now) for key, each in self._answers.items()}
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
        self,
        declared: DeclaredAnswer,
        found: Sequence[LockBreach],
        scheduled: bool,
        facts: SnapshotFacts,
        owners: Owners,
    ) -> tuple[Decision | None, int]:
        """Cancel the account's entries, and close what others opened if the stage declares that; None: nothing to do.

        With the number of closing orders.

        An account executor cancels entries before it closes, so that no order of theirs fills in between.
        """
        lock, account, strategy = found[0].under, found[0].account, found[0].strategy
        part = None if strategy is None else BookPart("strategy", strategy)
        around = None if part is None else facts
        view = ScopeView(facts.as_of, scheduled, (account,), facts.rules, None, around=around, part=part)
        opened = {each.key: each.excess for each in found} if declared.on_breach == "close" else {}
        targets = [
            SelectedTarget(each, each.candidate.position.contracts - opened[each.candidate.key])
            for each in rank(_BY_LOSS, candidates(view, None))
            if each.candidate.key in opened
        ]
        rule = self._unwinding(declared.unwinding)
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
            stage=declared.stage,
            level=declared.level,
            previous_level=declared.level,
            book=book_change(view, unwound.left),
            reason=joined(
                f"lock breached: {strategy or 'others'} opened {what} on {account.account}",
                *limited.remarks,
                *unwound.remarks,
            ),
            unwinding=declared_unwinding(rule),
        )
        decision = with_effects(record, effects)
        return (decision if decision.effects else None), len(unwound.intents)

    def _unwinding(self, name: str | None) -> UnwindingRule:
        """The unwinding of this name; market orders without one, and where the next set has it no more."""
        return next((each for each in self._policies.unwindings if each.name == name), PLAIN)


def _declared(policies: PolicySet) -> dict[tuple[str, str], DeclaredAnswer]:
    """What all stages declare, by policy and name."""
    return {
        (graph.policy, stage.name): DeclaredAnswer(
            graph.policy, stage.name, stage.level, stage.on_breach, stage.breach, _unwinding_of(stage)
        )
        for graph in policies.graphs
        for stage in graph.stages
    }


def _unwinding_of(stage: Stage) -> str | None:
    """The unwinding of the stage's own close; None without a close, or without an unwinding of its own."""
    close = whole_close(stage.actions, ())
    return None if close is None else close.unwinding


def _without_old(answers: Answers, now: int) -> Answers:
    """The answers whose fight keeps the cost of those that are forgotten; without a fight that has ended."""
    fight = answers.fight
    if fight is None:
        return answers
    if now - fight.last >= QUIET and not answers.is_fighting(now):
        return replace(answers, fight=None)
    old = sum((each.cost for each in answers.made.values() if now - each.at >= HOUR), ZERO)
    return replace(answers, fight=replace(fight, paid=fight.paid + old)) if old else answers


def fight_alert(answers: Answers, now: int) -> Alert | None:
    """The page of a fight, in the place of those of its breaches; None if there is none."""
    fight, name = answers.fight, answers.account
    if fight is None or not answers.is_fighting(now):
        return None
    took = (
        f"{fight.answers} answers with {fight.orders} closing orders, which cost {money(answers.cost, fight.currency)}"
    )
    above = ". It was above the declared ceiling, where nothing is paused" if fight.is_above else ""
    locked = name if fight.strategy is None else f"the strategy {fight.strategy} on {name}"
    return Alert(
        f"breach-fight/{name}" + ("" if fight.strategy is None else f"/{fight.strategy}"),
        "page",
        f"the lock of {locked} is fought: what was closed is opened again by a bot or a person that does not obey it. "
        f"So far {took} as far as known{above}. Stop the bot",
        NoticeGroup(fight.policy, fight.scope),
        over=f"the fight over the lock of {locked} has ended: {took} as far as known",
        since=fight.begun,
        measure=(Decimal(fight.is_above), Decimal(fight.progress(now))),
        replaces=fight.alert_keys(now),
    )


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


_DECODER = msgjson.Decoder(StoredAnswers | tuple[Answers, ...])
"""Earlier versions stored the answers alone."""
_ENCODER = msgjson.Encoder(decimal_format="string")
