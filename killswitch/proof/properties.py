"""The built-in properties of one policy, by induction over one evaluation from any state; runs only for witnesses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from killswitch.graph.nodes import Graph, Stage, step_of
from killswitch.graph.wording import signal_text, signals_of
from killswitch.proof.axioms import Inputs, assumptions, is_never_unknown, new_inputs, related
from killswitch.proof.conditions import opaque_texts
from killswitch.proof.machine import StepTerms, TriggerTerms
from killswitch.proof.solver import Prover, Term, any_of
from killswitch.proof.verdicts import LONGEST, Outcome, ProofVerdict, Situation, opaque_words, timed
from killswitch.proof.witness import Witness
from killswitch.render.formats import count_of
from killswitch.signals.catalogue import BY_NAME

Result = tuple[str, Outcome, str, Witness | None]


def prove(prover: Prover, graph: Graph) -> list[ProofVerdict]:
    """The verdicts on one policy."""
    found = Situation(prover, graph)
    properties = {
        "a stage can fire": reachable(found),
        "a deeper loss never demands a lower level": monotone(found),
        "past the outermost threshold the last level is demanded or in force": outermost(found),
        "no trigger is idle": idle(found),
        "unknown signals are reported": unknown_reported(found),
        "an automatic reset holds no trigger": reset_holds_none(found),
    }
    return [
        _lowered_only(found, each)
        for name, results in properties.items()
        for each in timed(prover, graph.policy, name, results)
    ]


def _lowered_only(found: Situation, verdict: ProofVerdict) -> ProofVerdict:
    """The verdict, undecided where what it is about contains a comparison that cannot be lowered.

    That it was proved for every value of the comparison rests on the assumption of what its values are. A witness rests
    on nothing but the engine, which evaluated the comparison.
    """
    if verdict.outcome == "undecided" or verdict.witness is not None or not found.opaque:
        return verdict
    graph, stages = found.graph, [each for each in found.graph.stages if each.name == verdict.subject]
    used = [_contained(graph, each) for each in stages or graph.stages]
    opaque = dict.fromkeys(text for i in dict.fromkeys(i for each in used for i in each)
                            for text in opaque_texts(replace(graph, conditions=(graph.conditions[i],))))  # fmt: skip
    if not opaque:
        return verdict
    text = f"it contains {', '.join(opaque)}, which cannot be lowered; for any value of it: {verdict.text}"
    return replace(verdict, outcome="undecided", text=text)


def _contained(graph: Graph, stage: Stage) -> tuple[int, ...]:
    """The conditions of a stage: its triggers, and its reset."""
    return (*stage.any_of, *stage.all_of, *(() if stage.reset is None else (stage.reset.condition,)))


def _refuted(found: Situation, subject: str, why: str, witness: Witness | None) -> Result:
    """A refutation with its witness, or undecided without one."""
    if witness is not None:
        return subject, "refuted", why, witness
    bound = f"no run of at most {LONGEST} evaluations was found that shows the contrary"
    return subject, "undecided", f"not proved by induction, and {bound}{opaque_words(found.opaque)}", None


def reachable(found: Situation) -> Iterator[Result]:
    """Each stage fires on some run; stages above decline only if they can."""
    ticks = max((each.confirm_ticks for each in found.graph.triggers), default=0)
    for number, stage in enumerate(found.graph.stages):

        def wanted(inputs: Sequence[Inputs], steps: Sequence[StepTerms], number: int = number) -> list[Term]:
            return [steps[-1].fired == number]

        def shows(witness: Witness, name: str = stage.name) -> bool:
            return witness[-1].fired == name

        lengths = [*range(1, 4), *([ticks + 1] if ticks > 2 else [])]
        witness, _ = found.witness(wanted, shows, lengths)
        if witness is not None:
            yield stage.name, "proved", f"fires after {count_of(len(witness), 'evaluation')}", witness
        elif found.prover.is_impossible(*found.facts, found.step.fired == number):
            yield stage.name, "refuted", "fires in no situation", None
        else:
            yield (
                stage.name,
                "undecided",
                f"no run of {max(lengths)} evaluations or fewer fires it{opaque_words(found.opaque)}",
                None,
            )


def monotone(found: Situation) -> Iterator[Result]:
    """With known losses that are deeper in each signal, the demanded level is never lower."""
    z3, graph = found.z3, found.graph
    sizes = [i for i, each in enumerate(graph.signals) if BY_NAME[each.name].is_loss_size]
    if not sizes:
        yield "", "proved", "no signal measures the size of a loss", None
        return
    deeper = new_inputs(z3, graph, "deeper")
    pairs = zip(found.inputs.signals, deeper.signals, strict=True)
    inputs = [*assumptions(z3, graph, found.inputs), *assumptions(z3, graph, deeper)]
    for i, (one, other) in enumerate(pairs):
        inputs += [z3.Not(one.unknown), z3.Not(other.unknown), one.low == one.high, other.low == other.high]
        inputs += [one.text == other.text, other.low >= one.low if i in sizes else other.low == one.low]
    inputs += [deeper.limits[i] == limit for i, limit in found.inputs.limits.items()]
    falling = []
    for i, trigger in enumerate(graph.triggers):
        less, more = found.lowering.condition(i, found.inputs), found.lowering.condition(i, deeper)
        worse = z3.Or(z3.And(less.true, z3.Not(more.true)), z3.And(more.false, z3.Not(less.false)))
        if not found.prover.is_impossible(*inputs, worse):
            falling.append(trigger.name)
    if not falling:
        yield "", "proved", "every trigger that is confirmed at a loss is confirmed at a deeper one", None
        return
    highest = [found.lowering.demands(stage, found.run(2)[1][-1].triggers) for stage in graph.stages]
    used = {graph.triggers[i].name for stage in graph.stages for i in (*stage.any_of, *stage.all_of)}
    named = ", ".join(each for each in falling if each in used)
    if not named:
        yield "", "proved", f"no stage uses {', '.join(falling)}, which a deeper loss ends", None
        return
    yield from _falls(found, sizes, named, highest)


def _falls(found: Situation, sizes: Sequence[int], named: str, highest: Sequence[Term]) -> Iterator[Result]:
    """Search two runs of which the deeper demands a lower level; a witness is the deeper one."""
    from killswitch.proof.witness import evaluations_of, replay

    z3, graph = found.z3, found.graph
    for length in range(1, 4):
        inputs, steps, facts = found.run(length)
        before, others = found.lowering.initial(), []
        facts = [*facts]
        for number, one in enumerate(inputs):
            other = new_inputs(z3, graph, f"deeper{number}")
            facts += [*assumptions(z3, graph, other), other.now == one.now, other.scheduled == one.scheduled]
            for i, (a, b) in enumerate(zip(one.signals, other.signals, strict=True)):
                facts += [z3.Not(a.unknown), z3.Not(b.unknown), a.low == a.high, b.low == b.high, a.text == b.text]
                facts.append(b.low >= a.low if i in sizes else b.low == a.low)
            facts += [z3.And(*(x == y for x, y in zip(one.limits.values(), other.limits.values(), strict=True)))]
            facts += [z3.Not(other.by_hand), found.z3.Not(steps[number].reset)]
            others.append((other, found.lowering.step(before, other)))
            facts.append(z3.Not(others[-1][1].reset))
            before = others[-1][1].state
        last, deeper = steps[-1].triggers, others[-1][1].triggers
        levels = [(each.level, found.lowering.demands(each, last)) for each in graph.stages]
        for stage, (level, demanded) in zip(graph.stages, levels, strict=True):
            as_high = any_of(z3, [found.lowering.demands(s, deeper) for s in graph.stages if s.level >= level])
            answer, model = found.prover.model(*facts, demanded, z3.Not(as_high))
            if answer == "sat":
                shallow = replay(graph, evaluations_of(model, graph, inputs))
                deep = replay(graph, evaluations_of(model, graph, [each for each, _ in others]))
                if deep[-1].demanded < shallow[-1].demanded:
                    text = (
                        f"{named}: at the deeper loss level {deep[-1].demanded} is demanded, and level "
                        f"{shallow[-1].demanded} at the smaller one ({stage.name}); the witness is the deeper one"
                    )
                    yield "", "refuted", text, deep
                    return
    yield _refuted(found, "", named, None)


def outermost(found: Situation) -> Iterator[Result]:
    """Each loss signal beyond its threshold at the last level, for the confirmation, demands that level."""
    graph = found.graph
    last = graph.stages[0].level
    for stage in graph.stages:
        if stage.level < last:
            continue
        for i in dict.fromkeys((*stage.any_of, *stage.all_of)):
            step = step_of(graph.triggers[i].condition)
            if step is not None and step.rising and BY_NAME[graph.signals[step.index].name].is_loss_size:
                yield _past(found, i, step.index, last)


def short_ladders(graph: Graph) -> tuple[str, ...]:
    """Signals of the size of a loss whose triggers stay below the last level, in words: nothing is proved of them."""
    last = graph.stages[0].level

    def readers(at_last: bool) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for stage in (each for each in graph.stages if (each.level == last) is at_last):
            for trigger in (graph.triggers[i] for i in (*stage.any_of, *stage.all_of)):
                for index in signals_of(trigger.condition):
                    found.setdefault(index, []).append(trigger.name)
        return found

    reached, lower = readers(True), readers(False)
    return tuple(
        f"{signal_text(signal)} of any size does not demand level {last}, but lower ones only: "
        f"{', '.join(sorted(set(lower[index])))}"
        for index, signal in enumerate(graph.signals)
        if index in lower and index not in reached and BY_NAME[signal.name].is_loss_size
    )


def _past(found: Situation, i: int, index: int, last: int) -> Result:
    """By induction with the time since which the signal is beyond: the trigger is held at least that long."""
    z3, graph = found.z3, found.graph
    rule, name = graph.triggers[i], graph.triggers[i].name
    before, after = found.before.triggers[i], found.step.state.triggers[i]
    is_beyond, since = z3.Bool("is_beyond"), z3.Int("beyond_since")
    counted = z3.Int("beyond_ticks")
    ticks_ok = z3.Or(before.confirmed, before.ticks >= counted) if rule.confirm_ticks else z3.BoolVal(True)
    enough = counted >= rule.confirm_ticks if rule.confirm_ticks else found.before.at - since >= rule.confirm
    invariant = z3.Implies(
        is_beyond, z3.And(before.held, before.since <= since, since <= found.before.at, ticks_ok,
                          z3.Implies(enough, before.confirmed)),
    )  # fmt: skip
    read = found.inputs.signals[index]
    now_since = z3.If(is_beyond, since, found.inputs.now)
    now_counted = z3.If(is_beyond, counted, 0) + z3.If(found.inputs.scheduled, 1, 0)
    beyond = [z3.Not(read.unknown), read.low == read.high, found.lowering.condition(i, found.inputs).true]
    now_enough = (
        now_counted >= rule.confirm_ticks if rule.confirm_ticks else found.inputs.now - now_since >= rule.confirm
    )
    demanded = any_of(z3, [found.lowering.demands(s, found.step.triggers) for s in graph.stages if s.level >= last])
    held = z3.And(after.held, after.since <= now_since, z3.Implies(now_enough, after.confirmed))
    if rule.confirm_ticks:
        held = z3.And(held, z3.Or(after.confirmed, after.ticks >= now_counted))
    fine = z3.And(held, z3.Implies(now_enough, z3.Or(demanded, found.step.state.level >= last)))
    if found.prover.is_impossible(*found.facts, invariant, *beyond, z3.Not(fine)):
        return (
            name,
            "proved",
            f"beyond {rule.threshold.written if rule.threshold else name}, level {last} is reached",
            None,
        )
    return _refuted(found, name, f"beyond {name} for its confirmation, level {last} is neither demanded nor in force",
                    _not_reached(found, i, index, last))  # fmt: skip


def _not_reached(found: Situation, i: int, index: int, last: int) -> Witness | None:
    z3, rule = found.z3, found.graph.triggers[i]

    def wanted(inputs: Sequence[Inputs], steps: Sequence[StepTerms]) -> list[Term]:
        facts = []
        first = max(0, len(inputs) - 2 - rule.confirm_ticks)
        for inside in inputs[first:]:
            read = inside.signals[index]
            facts += [z3.Not(read.unknown), read.low == read.high, found.lowering.condition(i, inside).true]
            facts += [inside.scheduled]
        demanded = [found.lowering.demands(s, steps[-1].triggers) for s in found.graph.stages if s.level >= last]
        lasted = inputs[-1].now - inputs[first].now >= rule.confirm
        return [*facts, lasted, z3.Not(any_of(z3, demanded)), steps[-1].state.level < last]

    def shows(witness: Witness) -> bool:
        return witness[-1].demanded < last and witness[-1].state.level < last

    return found.witness(wanted, shows, range(2 + rule.confirm_ticks, LONGEST + 1))[0]


def idle(found: Situation) -> Iterator[Result]:
    """No trigger of a stage is implied by, or implies, another one so that it changes nothing."""
    close = set(related(found.graph.signals))
    pairs = [
        (stage, way, i, j)
        for stage in found.graph.stages
        for way, triggers in (("any", stage.any_of), ("all", stage.all_of))
        for i in triggers
        for j in triggers
        if i != j and _may_imply(found.graph, i, j, close)
    ]
    named: set[tuple[str, int]] = set()
    for stage, way, i, j in pairs:
        who = i if way == "any" else j
        if (stage.name, who) in named:
            continue
        result = _implies(found, stage, way, i, j)
        if result is not None:
            named.add((stage.name, who))
            yield result
    if not named:
        yield "", "proved", "each trigger is confirmed in some situation in which no other one of its stage is", None


def _may_imply(graph: Graph, i: int, j: int, close: set[tuple[int, int]]) -> bool:
    """Whether trigger i may imply trigger j at all.

    Plain rising thresholds do not, if a value kept for both confirmations is true of one and false of the other.
    """
    one, other = step_of(graph.triggers[i].condition), step_of(graph.triggers[j].condition)
    if one is None or other is None or graph.triggers[i].threshold is None or graph.triggers[j].threshold is None:
        return True
    if one.index != other.index and (one.index, other.index) not in close:
        return (other.index, one.index) in close and not (one.rising and other.rising)
    return not (one.rising and other.rising and one.severity < other.severity)


def _implies(found: Situation, stage: Stage, way: str, i: int, j: int) -> Result | None:
    """The result if trigger i implies trigger j; None if it is shown that it does not."""
    z3, names = found.z3, [each.name for each in found.graph.triggers]

    def wanted(inputs: Sequence[Inputs], steps: Sequence[StepTerms]) -> list[Term]:
        last = steps[-1].triggers
        return [last[i].confirmed, z3.Not(last[j].confirmed)]

    def shows(witness: Witness) -> bool:
        confirmed = witness[-1].moved.triggers.confirmed
        return bool(confirmed >> i & 1) and not confirmed >> j & 1

    before, after = found.before.triggers, found.step.triggers
    facts = [*found.input_facts, found.inputs.now > found.before.at]
    facts += [fact for k in (i, j) for fact in found.lowering.trigger_invariants(k, before[k], found.before.at)]
    if found.prover.is_impossible(*facts, _stronger(found, before, i, j), z3.Not(_stronger(found, after, i, j))):
        who = names[i] if way == "any" else names[j]
        text = f"{names[i]} is never confirmed without {names[j]}, so that {who} changes nothing of {stage.name}"
        return who, "refuted", f"{text}. With `side: losing` it still chooses the window of the attribution", None
    witness, _ = found.witness(wanted, shows, (1, 2, 3, 4), is_shown=False)
    return None if witness is not None else _refuted(found, f"{names[i]}, {names[j]}", "", None)


def _stronger(found: Situation, triggers: Sequence[TriggerTerms], i: int, j: int) -> Term:
    """The relation of induction: trigger j is held whenever i is, no later, and confirmed whenever i is."""
    z3, one, other = found.z3, triggers[i], triggers[j]
    counts = found.graph.triggers[i].confirm_ticks and found.graph.triggers[j].confirm_ticks
    ticks = z3.Or(other.confirmed, other.ticks >= one.ticks) if counts else z3.BoolVal(True)
    held = z3.Implies(one.held, z3.And(other.held, other.since <= one.since, ticks))
    return z3.And(held, z3.Implies(one.confirmed, other.confirmed))


def unknown_reported(found: Situation) -> Iterator[Result]:
    """All signals unknown: every trigger is unknown, so that it is reported after its grace."""
    z3, graph = found.z3, found.graph
    facts = [*assumptions(z3, graph, found.inputs)]
    facts += [
        read.unknown for each, read in zip(graph.signals, found.inputs.signals, strict=True)
        if not is_never_unknown(each.name)
    ]  # fmt: skip
    never, partly, reported = [], [], []
    for i, trigger in enumerate(graph.triggers):
        names = {graph.signals[index].name for index in signals_of(trigger.condition)}
        verdict = found.lowering.condition(i, found.inputs)
        if all(map(is_never_unknown, names)):
            never.append(trigger.name)
        elif any(map(is_never_unknown, names)):
            partly.append(trigger.name)
        elif found.prover.is_impossible(*facts, z3.Or(verdict.true, verdict.false)):
            reported.append(trigger.name)
        else:
            yield trigger.name, "refuted", "it is true or false while all signals are unknown", None
    text = (
        f"{', '.join(reported)}: reported after its grace, longest without a known value; a source that is known "
        "once within each grace is not"
        if reported
        else "no trigger can be unknown"
    )
    if never:
        text += f"; never unknown: {', '.join(never)}"
    if partly:
        text += f"; known while signals that are never unknown decide it: {', '.join(partly)}"
    yield "", "proved", text, None


def reset_holds_none(found: Situation) -> Iterator[Result]:
    """At an automatic reset no trigger of the stage in force is held, in any state.

    Of a stage with `all` too: a held trigger fires nothing alone, but the reset begins its window anew. The loss that
    it measured is then forgotten, and the stage does not fire when the others are true again.
    """
    for number, stage in enumerate(found.graph.stages):
        if stage.reset is None:
            continue
        held = _holds(found, stage, found.step)
        if found.prover.is_impossible(*found.facts, found.before.stage == number, found.step.reset, held):
            yield stage.name, "proved", "at its reset none of its triggers is held", None
            continue

        def wanted(
            inputs: Sequence[Inputs], steps: Sequence[StepTerms], number: int = number, stage: Stage = stage
        ) -> list[Term]:
            return [steps[-1].reset, steps[-2].state.stage == number, _holds(found, stage, steps[-1])]

        def shows(witness: Witness, stage: Stage = stage) -> bool:
            held = witness[-1].moved.triggers.held
            return witness[-1].reset and any(held >> i & 1 for i in (*stage.any_of, *stage.all_of))

        witness, _ = found.witness(wanted, shows, range(3, LONGEST + 1))
        yield _refuted(found, stage.name, "its automatic reset lifts it while a trigger of it is held", witness)


def _holds(found: Situation, stage: Stage, step: StepTerms) -> Term:
    """Whether a trigger of the stage is held, confirmed or not."""
    return any_of(found.z3, [step.triggers[i].held for i in dict.fromkeys((*stage.any_of, *stage.all_of))])
