"""The page of a plan: accounts, triggers with headroom, decisions, and their execution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from killswitch.graph.actions.registry import action_kind
from killswitch.graph.nodes import PolicySet
from killswitch.graph.wording import percent, span
from killswitch.incident.notify.message import trigger_texts
from killswitch.incident.record.firing import exposure_lines, schedule_lines
from killswitch.model.decision import Book, Decision
from killswitch.model.effects import EFFECTS, WITH_OWN_KEYS, Orders, of_kind, sizes_of, tag_of
from killswitch.model.words import Rung, close_text
from killswitch.operations.pages.levels import (
    ALL_IN_JSON,
    MoneyKey,
    by_trigger,
    headroom_text,
    levels_parts,
    positions_section,
)
from killswitch.operations.pages.status_sections import (
    account_limits,
    correlation_groups,
    planned_stops,
    scope_holds,
    ways_back,
)
from killswitch.operations.pages.wording import (
    accounts_section,
    effect_parts,
    pending_lines,
    reason_lines,
    stage_label,
    trigger_table,
    without_shown_reasons,
)
from killswitch.operations.preview import Preview
from killswitch.planning.catastrophe_stops import stops_now
from killswitch.planning.firing import LevelPreview
from killswitch.planning.scopes.money_headroom import MoneyHeadroom
from killswitch.planning.scopes.trigger_status import MachineStatus, TriggerStatus, headroom_ratio
from killswitch.planning.targets.merge import ordered_on
from killswitch.render.document import Facts, Footnotes, Items, Page, Section, Table, section
from killswitch.render.formats import count_of, instant, money, number

MACHINES_SHOWN = 12
"""Maximum scopes of policies on a page; `--output json` lists all."""
WITH_ORDERS = 3
"""Maximum scopes of policies up to which each level lists its orders."""


def plan_page(shown: Preview) -> Page:
    """The whole plan; its result comes last, where a terminal shows it."""
    notes = (f"Note: {each.scope}: {without_shown_reasons(each.text, shown.accounts)}" for each in shown.notices)
    return Page(
        "Plan",
        facts=Facts((
            ("Plan as of", instant(shown.snapshot.as_of)),
            ("Policy set", shown.policies.digest[:19]),
            ("History", shown.memory),
        )),
        sections=(
            *accounts_section(shown.accounts, is_dated=False),  # as of the plan
            *scope_holds(shown.holds),
            *account_limits(shown.policies.limits, (each.account for each in shown.accounts)),
            *positions_section(shown.positions),
            *_exposures(shown),
            *_hedges(shown),
            *_machines(shown),
            *correlation_groups(shown.machines, shown.snapshot.as_of),
            *ways_back(shown.recoveries),
            *_declared_ways_back(shown.policies),
            *planned_stops(stops_now(shown.policies.stops, shown.snapshot.accounts), shown.policies.stops),
            *(_decision(decision, shown) for decision in shown.decisions),
            *section("", Items(tuple(notes))),
            *section("", Items(tuple(_expectations(shown)))),
            Section("", (_summary(shown),)),
        ),
    )  # fmt: skip


def _exposures(shown: Preview) -> Iterator[Section]:
    """The exposure of each scope to the market now, and what each stage would leave of it if it fired."""
    for each in shown.net_exposures:
        lines = [*exposure_lines(each.exposure)]
        for level in shown.levels:
            decision = level.decision
            if (decision.policy, decision.scope) == (each.policy, each.scope):
                left = exposure_lines(decision.net_exposure, with_bases=False)
                lines += [f"after {decision.stage}: {line}" for line in left]
        suggested = {order for option in each.exposure.options for order in option.orders}
        lines += [answer.line for answer in shown.gate_answers if answer.order in suggested]
        title = f"Exposed to the market, {each.policy} on {each.scope}; nothing is sent for it"
        yield from section(title, Items(tuple(lines)))


def _hedges(shown: Preview) -> Iterator[Section]:
    """The net of each declared hedge, and the order that would take it out."""
    footnotes = Footnotes()
    rows = tuple(
        (
            each.hedge,
            "unknown" if each.net is None else f"{each.net.normalize():f}",
            "unknown" if each.larger is None else f"{each.larger.normalize():f}",
            "-" if each.unknown is None and each.suggestion is None else each.suggestion or
            f"unknown {footnotes.numbered(each.unknown or '')}",
        )
        for each in shown.hedges
    )  # fmt: skip
    head = ("hedge", "net in base units", "larger side", "suggested; nothing is sent for it")
    yield from section("Hedges", Table(head, rows, (1, 2), notes=footnotes.notes))


def _declared_ways_back(policies: PolicySet) -> Iterator[Section]:
    """What follows a reset: the steps that each recovery plan has computed, and what they wait for."""
    rows = []
    for graph in policies.graphs:
        rule = graph.recovery
        if rule is None:
            continue
        for account, shares in rule.ramp.shares:
            counts = (rule.most_positions(account, step) for step in range(len(shares)))
            sizes = zip(shares, counts, strict=True)
            steps = ", ".join(
                f"{float(share) * 100:.3g}%" + ("" if most is None else f" in {most}") for share, most in sizes
            )
            approvals = f", and {count_of(rule.ramp.approvals, 'approval')}" if rule.ramp.approvals else ""
            rows.append((graph.policy, account, steps, f"{span(rule.ramp.every)} watched{approvals}", rule.name))
    head = ("policy", "account", "shares of its limits (in so many positions), step by step", "each after", "plan")
    yield from section("After a reset", Table(head, tuple(rows), expendable=(4,)))


def _expectations(shown: Preview) -> Iterator[str]:
    """What is exceeded, and what cannot be counted."""
    for each in shown.expectations:
        if each.is_exceeded:
            yield f"NOT EXPECTED: {each.text}"
        elif each.unknown is not None:
            yield f"Note: {each.text}"


def _machines(shown: Preview) -> Iterator[Section]:
    """The scopes of policies: all, or those that matter most and a line that counts the rest."""
    money, levels = by_trigger(shown.headrooms), _levels(shown)
    machines = shown.machines
    if len(machines) > MACHINES_SHOWN:
        deciding = {(each.policy, each.scope) for each in shown.decisions}
        urgent = sorted(machines, key=lambda each: _urgency(each, deciding))[:MACHINES_SHOWN]
        kept = {(each.policy, each.scope) for each in urgent}
        machines = tuple(each for each in machines if (each.policy, each.scope) in kept)
    for machine in machines:
        own = levels.get((machine.policy, machine.scope), ())
        yield from _machine(machine, shown, money, own, with_orders=len(shown.machines) <= WITH_ORDERS)
    rest = len(shown.machines) - len(machines)
    yield from section("", f"and {count_of(rest, 'more scope')} of policies, none of them nearer to its threshold or "
                       f"latched; {ALL_IN_JSON}" if rest else None)  # fmt: skip


def _urgency(machine: MachineStatus, deciding: set[tuple[str, str]]) -> tuple[bool, int, float]:
    """Sort key, the smallest first: what decides now, what is latched, what is nearest to its threshold."""
    ratios = [ratio for each in machine.triggers if (ratio := headroom_ratio(each)) is not None]
    return (machine.policy, machine.scope) not in deciding, -machine.level, min(ratios, default=1.0)


def _levels(shown: Preview) -> Mapping[tuple[str, str], Sequence[LevelPreview]]:
    found: dict[tuple[str, str], list[LevelPreview]] = {}
    for each in shown.levels:
        found.setdefault((each.decision.policy, each.decision.scope), []).append(each)
    return found


def _machine(
    machine: MachineStatus, shown: Preview, money: Mapping[MoneyKey, MoneyHeadroom], levels: Sequence[LevelPreview],
    *, with_orders: bool,
) -> Iterator[Section]:  # fmt: skip
    latched = f"level {machine.level} ({stage_label(machine)})" if machine.level else "nothing latched"
    cooling = f", cooldown until {instant(machine.cooldown_until)}" if machine.cooldown_until else ""
    title = f"{machine.policy} on {machine.scope}: {latched}{cooling}"
    pending = Items(tuple(pending_lines(machine, shown.snapshot.as_of)))

    def in_money(_: MachineStatus, trigger: TriggerStatus, footnotes: Footnotes) -> str:
        return headroom_text(money.get((machine.policy, machine.scope, trigger.name)), footnotes)

    table = trigger_table((machine,), shown.accounts, in_money)
    yield from section(title, pending, table, *levels_parts(levels, with_orders=with_orders))


def _decision(decision: Decision, shown: Preview) -> Section:
    if decision.kind == "reset":
        from_level = f"from level {decision.previous_level}: {decision.reason}"
        return Section("", (f"RESET {decision.scope} ({decision.policy}) {from_level}",))
    effects = () if decision.is_withdrawal else decision.effects
    parts = (Items(tuple(_reasons(decision, shown))), *effect_parts(effects, shown.snapshot))
    return Section(_title(decision), (*parts, Items(tuple(_execution(decision, shown)))))


def _reasons(decision: Decision, shown: Preview) -> Iterator[str]:
    if not decision.is_suspicion:
        yield from (f"because {line}" for line in reason_lines(decision, trigger_texts(shown.policies)))
        yield from _closes(decision, shown)
    if decision.reason:
        yield f"note: {decision.reason}"


def _execution(decision: Decision, shown: Preview) -> Iterator[str]:
    if decision.is_suspicion:
        return
    if decision.stage is not None and of_kind(decision.effects, Orders) is None:
        yield "no order of its own" + _covered(decision, shown)
    if decision.unwinding is not None:
        yield f"execution: {execution_text(decision)}"
    yield from (f"schedule: {line}" for line in schedule_lines(decision))
    yield from exposure_lines(decision.net_exposure, with_bases=False)
    if decision.book is not None:
        yield f"book: {_book(decision.book.before)}"
        yield f"   →  {_book(decision.book.after)}"


def _title(decision: Decision) -> str:
    observing = "" if decision.mode == "enforce" else " (observe: recorded, never executed)"
    where = f"{decision.policy} on {decision.scope}"
    if decision.is_suspicion:
        what = "WOULD WITHDRAW THE LOCK" if decision.is_withdrawal else "WOULD LOCK"
        return f"{what} ON SUSPICION {where}: {decision.stage} does not fire{observing}"
    by_itself = "hedge" if decision.kind == "hedge" else close_text(decision.cause)
    what = f"{decision.stage}, level {decision.previous_level} → {decision.level}" if decision.stage else by_itself
    return f"WOULD FIRE {where}: {what}{observing}"


def _closes(decision: Decision, shown: Preview) -> Iterator[str]:
    """What the stage of the policy closes, as text."""
    for graph in shown.policies.graphs:
        if graph.policy == decision.policy:
            stages = [stage for stage in graph.stages if stage.name == decision.stage]
            actions = [(action_kind(action), action) for stage in stages for action in stage.actions]
            yield from (kind.text(it, graph.position_signals) for kind, it in actions if tag_of(Orders) in kind.effects)


def _covered(decision: Decision, shown: Preview) -> str:
    """The decisions whose orders include those of this one: a position has one target, the smallest."""
    others = [d.policy for d in shown.decisions if d.id != decision.id and ordered_on(d) and d.mode == "enforce"]
    return f": {' and '.join(others)} closes as much or more" if others and decision.book is not None else ""


def _book(book: Book) -> str:
    ratio = "unknown" if book.margin_ratio is None else number(float(book.margin_ratio), "fraction")
    return f"gross {money(book.gross)}, net {money(book.net)}, margin ratio {ratio}"


def _is_unknown(trigger: TriggerStatus) -> bool:
    """Whether nothing is known about the value; a window without enough history is partly known."""
    return trigger.truth is None and (trigger.value is None or trigger.value == (None, None))


def _summary(shown: Preview) -> str:
    fires = sum(decision.kind not in ("reset", "suspicion") for decision in shown.decisions)
    acting = [each for each in shown.decisions if each.mode == "enforce" and not each.is_withdrawal]
    sizes = [sizes_of(decision.effects) for decision in acting]
    totals = [(kind, sum(each[kind.key] for each in sizes)) for kind in EFFECTS]
    resets = sum(decision.kind == "reset" for decision in shown.decisions)
    if shown.unreadable and not shown.pending:
        outages = [f"{it.account} is {it.quality}" for it in shown.accounts if it.quality != "ok"]
        return f"Unknown: {' and '.join(outages)}, see above. Nothing was changed."
    unknown = [
        f"{machine.policy} on {machine.scope}"
        for machine in shown.machines
        if machine.triggers and all(_is_unknown(each) for each in machine.triggers)
    ]
    if unknown and not shown.pending:
        return f"Unknown: every trigger of {' and '.join(unknown)} is unknown, see above. Nothing was changed."
    if not shown.pending:
        return "Nothing to do. Nothing was changed."
    counts = [count_of(total, kind.noun) for kind, total in totals if total or kind.effect in WITH_OWN_KEYS]
    return f"Plan: {count_of(fires, 'stage')}, {', '.join(counts)}, {count_of(resets, 'reset')}. Nothing was changed."


def execution_text(decision: Decision) -> str:
    """The ladder and the pace: `within 3% of the mark, 1 try, then at market; as fast as the venue allows`."""
    ladder = () if decision.unwinding is None else decision.unwinding.ladder
    orders = of_kind(decision.effects, Orders)
    bounds = sorted({intent.band for intent in (() if orders is None else orders.intents) if intent.band is not None})
    common_bound = bounds[0] if len(bounds) == 1 else None
    steps = ", then ".join(_step_text(step, common_bound) for step in ladder) or "at market"
    if ladder and len(bounds) > 1:
        steps += f"; the bound is {percent(bounds[0])} to {percent(bounds[-1])} of the mark"
    unmarked = list(dict.fromkeys(each.symbol for each in (() if orders is None else orders.intents) if each.at_market))
    if unmarked:
        steps += f"; without a fresh mark, so at market at once: {', '.join(unmarked)}"
    return f"{steps}; {_pace(decision)}"


def _step_text(step: Rung, bound: Decimal | None) -> str:
    """One step of the ladder. `bound`: the slippage bound, if it is the same for every order."""
    tries = "1 try" if step.tries == 1 else f"{step.tries} tries"
    if step.order == "market":
        return f"at market, {tries}"
    factor = "the bound" if step.widen == 1 else f"{step.widen.normalize():f} × the bound"
    limit = factor if bound is None else f"{percent(bound * step.widen)} of the mark"
    if step.order == "limit_ioc":
        return f"within {limit}, {tries}"
    return f"resting within {limit} where no market order fills"


def _pace(decision: Decision) -> str:
    unwinding = decision.unwinding
    parts = []
    if unwinding is not None and unwinding.max_orders_per_minute is not None:
        parts.append(f"at most {count_of(unwinding.max_orders_per_minute, 'order')} a minute")
    if unwinding is not None and unwinding.pause is not None:
        parts.append(f"{unwinding.pause:g} s between two slices of a position")
    return ", ".join(parts) or "as fast as the venue allows"
