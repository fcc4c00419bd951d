"""One evaluation of one stage machine as terms: `engine.step`, the choice of a stage, its latch, and a reset.

Time is symbolic and freely spaced. Not lowered: partial and pending closes of unreadable accounts, suspicion, refuted
prices, `disabled`, and `no_reset_before` a time of the day (a reset is then allowed earlier than the engine does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from killswitch.graph.analysis.reachability import can_decline
from killswitch.graph.nodes import Graph, Stage
from killswitch.proof.axioms import Inputs
from killswitch.proof.conditions import ConditionLowering, Verdict
from killswitch.proof.solver import Term, all_of, any_of


class TriggerTerms(Struct, frozen=True):
    """State of one trigger. `since` counts while held, `ticks` while pending, `unknown_since` while unknown."""

    held: Term
    confirmed: Term
    unknown: Term
    spent: Term
    since: Term
    ticks: Term
    unknown_since: Term


class MachineTerms(Struct, frozen=True):
    """State of the machine after an evaluation at `at`. `stage` is an index of `Graph.stages`, -1 for none.

    Times are microseconds. `resetting`: the condition of the reset holds since `reset_since`.
    """

    triggers: tuple[TriggerTerms, ...]
    at: Term
    level: Term
    stage: Term
    fired_at: Term
    cooldown_until: Term
    no_reset_before: Term
    resetting: Term
    reset_since: Term
    by_hand: Term


class StepTerms(Struct, frozen=True):
    """Result of one evaluation. `triggers`: after it and before a reset. `fired`: the index of the stage, -1 for none.

    `true` and `unknown` have one entry for each condition of the graph.
    """

    state: MachineTerms
    triggers: tuple[TriggerTerms, ...]
    fired: Term
    reset: Term
    true: tuple[Term, ...]
    unknown: tuple[Term, ...]


class MachineLowering:
    """The evaluation of one graph as terms. Each rule of the engine is a method, so that a test can break it."""

    def __init__(self, z3: Any, graph: Graph) -> None:
        self.z3 = z3
        self.graph = graph
        self.conditions = ConditionLowering(z3, graph.signals)

    # States

    def initial(self) -> MachineTerms:
        """The state before the first evaluation."""
        z3 = self.z3
        no, zero = z3.BoolVal(False), z3.IntVal(0)
        triggers = tuple(TriggerTerms(no, no, no, no, zero, zero, zero) for _ in self.graph.triggers)
        return MachineTerms(triggers, z3.IntVal(-1), zero, z3.IntVal(-1), zero, zero, zero, no, zero, no)

    def free(self, name: str) -> MachineTerms:
        """An arbitrary state; `name` makes its names unique. `invariants` says which can occur."""
        z3 = self.z3
        triggers = tuple(
            TriggerTerms(
                *(z3.Bool(f"{name}_{what}{i}") for what in ("held", "confirmed", "unknown", "spent")),
                *(z3.Int(f"{name}_{what}{i}") for what in ("since", "ticks", "unknown_since")),
            )
            for i in range(len(self.graph.triggers))
        )
        at, level, stage, fired_at, cooldown_until, no_reset_before = (
            z3.Int(f"{name}_{what}")
            for what in ("at", "level", "stage", "fired_at", "cooldown_until", "no_reset_before")
        )
        return MachineTerms(
            triggers, at, level, stage, fired_at, cooldown_until, no_reset_before,
            z3.Bool(f"{name}_resetting"), z3.Int(f"{name}_reset_since"), z3.Bool(f"{name}_by_hand"),
        )  # fmt: skip

    def invariants(self, state: MachineTerms) -> list[Term]:
        """What is true of every state that an evaluation leaves; a test compares it with the engine's states."""
        facts = [fact for i, each in enumerate(state.triggers) for fact in self.trigger_invariants(i, each, state.at)]
        return [*facts, *self._machine_invariants(state)]

    def trigger_invariants(self, number: int, each: TriggerTerms, at: Term) -> list[Term]:
        """What is true of the state of one trigger after an evaluation at `at`."""
        z3, rule = self.z3, self.graph.triggers[number]
        facts = [
            z3.Implies(each.confirmed, each.held),
            z3.Implies(each.held, each.since <= at),
            z3.Implies(each.unknown, each.unknown_since <= at),
            z3.Implies(each.spent, z3.Or(each.held, each.unknown)),
            each.ticks >= 0,
        ]
        if not rule.confirm_ticks:
            facts.append(z3.Implies(each.confirmed, at - each.since >= rule.confirm))
        if rule.on_unknown != "hold":
            facts.append(z3.Implies(each.unknown, each.held == (rule.on_unknown == "trip")))
        return facts

    def _machine_invariants(self, state: MachineTerms) -> list[Term]:
        z3 = self.z3
        stages = [
            z3.And(
                state.stage == i, state.level == stage.level, state.cooldown_until == state.fired_at + stage.cooldown,
                z3.Implies(state.resetting, z3.BoolVal(stage.reset is not None)),
                z3.Implies(state.by_hand, z3.BoolVal(stage.reset is not None and stage.reset.at_most is not None)),
            )
            for i, stage in enumerate(self.graph.stages)
        ]  # fmt: skip
        normal = z3.And(
            state.stage == -1, state.level == 0, z3.Not(state.resetting), z3.Not(state.by_hand),
            *(z3.Not(each.spent) for each in state.triggers),
        )  # fmt: skip
        return [
            z3.Or(normal, *stages),
            z3.Implies(state.level > 0, state.fired_at <= state.at),
            z3.Implies(state.resetting, z3.And(state.reset_since > state.fired_at, state.reset_since <= state.at)),
        ]

    # One evaluation

    def step(self, before: MachineTerms, inputs: Inputs) -> StepTerms:
        """The evaluation of `inputs`, with planning and reset."""
        verdicts = [self.condition(i, inputs) for i in range(len(self.graph.conditions))]
        triggers = tuple(self.trigger(i, each, verdicts[i], inputs) for i, each in enumerate(before.triggers))
        resetting, reset_since, is_due = self.watch_reset(before, verdicts, inputs)
        eligible = [self.eligible(stage, before, triggers, inputs) for stage in self.graph.stages]
        fires = self.chosen(eligible, inputs)
        reset = self.z3.And(is_due, self.z3.Not(any_of(self.z3, eligible)))
        state = self.after(before, triggers, inputs, fires, reset, (resetting, reset_since))
        fired = self.z3.IntVal(-1)
        for i, each in reversed(list(enumerate(fires))):
            fired = self.z3.If(each, i, fired)
        unknown = tuple(self.z3.Not(self.z3.Or(each.true, each.false)) for each in verdicts)
        return StepTerms(state, triggers, fired, reset, tuple(each.true for each in verdicts), unknown)

    def condition(self, number: int, inputs: Inputs) -> Verdict:
        """Condition `number` of the graph; that of a computed threshold at its present value."""
        if number not in inputs.limits:
            return self.conditions.verdict(self.graph.conditions[number], inputs.signals)
        z3, threshold, limit = self.z3, self.graph.triggers[number].threshold, inputs.limits[number]
        if threshold is None:
            raise AssertionError("only a threshold is computed")
        read = inputs.signals[threshold.index]
        known, strict = z3.Not(read.unknown), threshold.op == ">"
        true = read.low > limit if strict else read.low >= limit
        may_be = read.high > limit if strict else read.high >= limit
        return Verdict(z3.And(known, true), z3.And(known, z3.Not(may_be)))

    def trigger(self, number: int, before: TriggerTerms, verdict: Verdict, inputs: Inputs) -> TriggerTerms:
        """Trigger `number` after the evaluation."""
        z3, rule, now = self.z3, self.graph.triggers[number], inputs.now
        missing = z3.Not(z3.Or(verdict.true, verdict.false))
        held = self.held(number, before, verdict.true, missing)
        since = z3.If(before.held, before.since, now)
        ticks = self.ticks(before, inputs)
        asserted = z3.Or(verdict.true, missing) if rule.on_unknown == "trip" else verdict.true
        enough = ticks >= rule.confirm_ticks if rule.confirm_ticks else self.has_lasted(now, since, rule.confirm)
        confirmed = z3.And(held, z3.Or(before.confirmed, z3.And(self.completes(asserted, held), enough)))
        return TriggerTerms(
            held, confirmed, missing, self.spent(before, verdict.true, missing), since,
            z3.If(z3.And(held, z3.Not(confirmed)), ticks, 0), z3.If(before.unknown, before.unknown_since, now),
        )  # fmt: skip

    def held(self, number: int, before: TriggerTerms, true: Term, missing: Term) -> Term:
        """Whether the trigger counts as true."""
        answer = self.graph.triggers[number].on_unknown
        if answer == "hold":
            return self.z3.Or(true, self.z3.And(missing, before.held))
        return self.z3.Or(true, missing) if answer == "trip" else true

    def ticks(self, before: TriggerTerms, inputs: Inputs) -> Term:
        """Scheduled ticks for which a pending trigger is held."""
        counted = self.z3.If(before.held, before.ticks, 0)
        return counted + self.z3.If(inputs.scheduled, 1, 0)

    def has_lasted(self, now: Term, since: Term, time: int) -> Term:
        """Whether `time` has passed since then."""
        return now - since >= time

    def completes(self, asserted: Term, held: Term) -> Term:
        """Whether this evaluation may complete a confirmation: a held unknown keeps its clock only."""
        return asserted

    def spent(self, before: TriggerTerms, true: Term, missing: Term) -> Term:
        """Whether a stage has fired on the trigger, and it was not observed false since."""
        return self.z3.And(before.spent, self.z3.Or(true, missing))

    def watch_reset(self, before: MachineTerms, verdicts: Sequence[Verdict], inputs: Inputs) -> tuple[Term, Term, Term]:
        """Whether the condition of the reset holds, since when, and whether the reset is due."""
        z3 = self.z3
        automatic = [(i, stage, stage.reset) for i, stage in enumerate(self.graph.stages) if stage.reset is not None]
        holds = any_of(z3, [z3.And(before.stage == i, verdicts[rule.condition].true) for i, _, rule in automatic])
        resetting = z3.And(holds, z3.Not(before.by_hand))
        since = z3.If(before.resetting, before.reset_since, inputs.now)
        lasted = any_of(
            z3, [z3.And(before.stage == i, self.has_lasted(inputs.now, since, rule.hold)) for i, _, rule in automatic]
        )
        return resetting, since, z3.And(resetting, lasted, self.may_reset(before, inputs.now))

    def may_reset(self, before: MachineTerms, now: Term) -> Term:
        """Whether cooldown and time without a reset are over."""
        return self.z3.And(now >= before.cooldown_until, now >= before.no_reset_before)

    def eligible(self, stage: Stage, before: MachineTerms, triggers: Sequence[TriggerTerms], inputs: Inputs) -> Term:
        """Whether the stage may fire: a higher level always, the same level on something new, a lower one never."""
        z3 = self.z3
        anew = [
            z3.And(triggers[i].confirmed, z3.Not(triggers[i].spent))
            for i in dict.fromkeys((*stage.any_of, *stage.all_of))
            if self.graph.triggers[i].rearms
        ]
        is_new = z3.Or(inputs.lost, any_of(z3, anew))
        again = z3.And(self.same_level(stage, before), self.rested(before, inputs.now), is_new)
        return z3.And(self.demands(stage, triggers), z3.Or(stage.level > before.level, again))

    def rested(self, before: MachineTerms, now: Term) -> Term:
        """Whether the cooldown is over."""
        return now >= before.cooldown_until

    def same_level(self, stage: Stage, before: MachineTerms) -> Term:
        """Whether the level in force is that of the stage."""
        return before.level == stage.level

    def demands(self, stage: Stage, triggers: Sequence[TriggerTerms]) -> Term:
        """Whether the triggers of the stage are confirmed."""
        either = any_of(self.z3, [triggers[i].confirmed for i in stage.any_of])
        every = all_of(self.z3, [triggers[i].confirmed for i in stage.all_of])
        return self.z3.And(either, every) if stage.any_of else every

    def chosen(self, eligible: Sequence[Term], inputs: Inputs) -> list[Term]:
        """Which stage fires: the first eligible one that planning does not refuse."""
        z3, fires, earlier = self.z3, [], self.z3.BoolVal(False)
        for i, (stage, each) in enumerate(zip(self.graph.stages, eligible, strict=True)):
            may = z3.And(each, z3.Not(inputs.refused[i])) if can_decline(stage) else each
            fires.append(z3.And(may, z3.Not(earlier)))
            earlier = z3.Or(earlier, may)
        return fires

    def after(
        self,
        before: MachineTerms,
        triggers: Sequence[TriggerTerms],
        inputs: Inputs,
        fires: Sequence[Term],
        reset: Term,
        clock: tuple[Term, Term],
    ) -> MachineTerms:
        """The state with the latch of the stage that fires, or after the reset."""
        z3, now = self.z3, inputs.now
        fired = any_of(z3, fires)
        start = self.initial()

        def latched(normal: Term, of: Sequence[Term]) -> Term:
            for fires_now, value in zip(fires, of, strict=True):
                normal = z3.If(fires_now, value, normal)
            return normal

        stages = self.graph.stages
        ends = [z3.IntVal(0) if s.no_reset_for is None else now + s.no_reset_for for s in stages]
        ends = [z3.If(end > before.no_reset_before, end, before.no_reset_before) for end in ends]
        limited = [z3.BoolVal(s.reset is not None and s.reset.at_most is not None) for s in stages]
        spent = [
            z3.Or(each.spent, z3.And(each.confirmed, any_of(z3, [
                fires[k] for k, stage in enumerate(stages) if i in (*stage.any_of, *stage.all_of)
            ])))
            for i, each in enumerate(triggers)
        ]  # fmt: skip
        stays = z3.Not(reset)
        kept = [
            TriggerTerms(
                z3.And(each.held, stays), z3.And(each.confirmed, stays), z3.And(each.unknown, stays),
                z3.And(spent[i], stays), each.since, each.ticks, each.unknown_since,
            )
            for i, each in enumerate(triggers)
        ]  # fmt: skip
        resetting, reset_since = clock
        return MachineTerms(
            tuple(kept), now,
            z3.If(reset, start.level, latched(before.level, [s.level for s in stages])),
            z3.If(reset, start.stage, latched(before.stage, [z3.IntVal(i) for i in range(len(stages))])),
            z3.If(fired, now, before.fired_at),
            latched(before.cooldown_until, [self.cooldown_end(s, before, now) for s in stages]),
            z3.If(reset, start.no_reset_before, latched(before.no_reset_before, ends)),
            z3.And(resetting, z3.Not(fired), z3.Not(reset)), reset_since,
            z3.And(z3.Not(reset), latched(before.by_hand, [z3.And(each, inputs.by_hand) for each in limited])),
        )  # fmt: skip

    def cooldown_end(self, stage: Stage, before: MachineTerms, now: Term) -> Term:
        """When the cooldown of a firing ends."""
        return now + stage.cooldown
