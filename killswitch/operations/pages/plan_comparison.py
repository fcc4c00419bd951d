"""The page of `ksctl plan --against`: what both sets decide on the same book, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from killswitch.model.decision import Decision
from killswitch.operations.pages.levels import MoneyKey, by_trigger, headroom_text
from killswitch.operations.pages.status_sections import limit_texts, scope_holds
from killswitch.operations.pages.wording import accounts_section, stage_label, without_shown_reasons
from killswitch.operations.plan_comparison import AgainstSet, ScopeDifference, differences
from killswitch.operations.preview import Preview
from killswitch.planning.firing import LevelPreview
from killswitch.planning.scopes.money_headroom import MoneyHeadroom
from killswitch.planning.scopes.trigger_status import MachineStatus, TriggerStatus
from killswitch.render.document import Facts, Footnotes, Items, Page, Section, Table, section
from killswitch.render.formats import count_of, instant, money

SCOPES_SHOWN = 20
"""Maximum scopes that differ on a page; `--output json` lists all."""
MISSING = "not in this set"


def comparison_page(shown: Preview, against: AgainstSet) -> Page:
    """The head next to the other set; the result comes last, where a terminal shows it."""
    found = [each for each in differences(shown, against) if each.kind != "same"]
    same = len(differences(shown, against)) - len(found)
    kept, rest = found[:SCOPES_SHOWN], found[SCOPES_SHOWN:]
    more = f"and {count_of(len(rest), 'more scope')} that differ; `--output json` lists all" if rest else None
    notes = (f"Note: {each.scope}: {without_shown_reasons(each.text, shown.accounts)}" for each in shown.notices)
    return Page(
        "Plan against another policy set",
        facts=Facts((
            ("Plan as of", instant(shown.snapshot.as_of)),
            ("Head", shown.policies.digest[:19]),
            (against.name.capitalize() if against.name == "deployed" else "Against", _named(against)),
            ("History", shown.memory),
        )),
        sections=(
            *accounts_section(shown.accounts, is_dated=False),
            *scope_holds(shown.holds),
            *_limits(shown, against),
            *section("Decisions now", _decisions(kept, against), more),
            *_triggers(kept, shown, against),
            *_levels(kept, shown, against),
            *section("What a reload does to what is in force", Items(against.reload)),
            *section("", Items(tuple(notes))),
            Section("", (_result(found, same, against),)),
        ),
    )  # fmt: skip


def _named(against: AgainstSet) -> str:
    digest = against.preview.policies.digest[:19]
    return digest if against.name == "deployed" else f"{against.name}, {digest}"


def _limits(shown: Preview, against: AgainstSet) -> Iterator[Section]:
    """What the gate lets bots open under each set, for each document whose limits are not the same."""
    here, there = ({it.name: ", ".join(limit_texts(it)) or "none" for it in each.policies.limits}
                   for each in (shown, against.preview))  # fmt: skip
    rows = tuple(
        (name, there.get(name, MISSING), here.get(name, MISSING))
        for name in dict.fromkeys((*there, *here))
        if there.get(name) != here.get(name)
    )
    yield from section("Limits of entries that differ", Table(("document", against.name, "head"), rows))


def _decisions(found: Sequence[ScopeDifference], against: AgainstSet) -> Table:
    rows = tuple(
        (
            each.policy, each.scope,
            MISSING if each.other_machine is None else _decided(each.other, each.other_machine),
            MISSING if each.head_machine is None else _decided(each.head, each.head_machine),
        )
        for each in found
    )  # fmt: skip
    return Table(("policy", "scope", against.name, "head"), rows)


def _decided(decisions: Iterable[Decision], machine: MachineStatus) -> str:
    """What a set decides on a scope, in a few words, and what is in force there."""
    texts = [_decision(each) for each in decisions]
    if machine.disabled is not None:
        texts.append("disabled")
    if machine.paused is not None:
        texts.append("paused")
    if machine.level:
        texts.append(f"in force: level {machine.level} {stage_label(machine)}")
    return "; ".join(texts) or "nothing"


def _decision(decision: Decision) -> str:
    if decision.kind == "reset":
        return f"resets from level {decision.previous_level}"
    if decision.is_suspicion:
        return "withdraws a lock" if decision.is_withdrawal else "locks on suspicion"
    book = decision.book
    closed = None if book is None or book.before.gross is None else book.before.gross - (book.after.gross or Decimal(0))
    orders = count_of(len(decision.intents), "order")
    observing = "" if decision.mode == "enforce" else " (observe)"
    what = decision.kind or f"fires {decision.stage}, level {decision.level}"
    return f"{what}{observing}: {orders}" + ("" if closed is None else f", closes {money(closed)}")


def _triggers(found: Sequence[ScopeDifference], shown: Preview, against: AgainstSet) -> Iterator[Section]:
    """The triggers that are not the same: threshold, headroom and state under each set."""
    footnotes = Footnotes()
    here, there = by_trigger(shown.headrooms), by_trigger(against.preview.headrooms)
    rows: list[tuple[str, ...]] = []
    for each in found:
        one, other = _named_triggers(each.head_machine), _named_triggers(each.other_machine)
        for name in dict.fromkeys((*other, *one)):
            before, after = other.get(name), one.get(name)
            if _is_alike(before, after):
                continue
            was = _trigger(before, each.other_machine, there, footnotes)
            now = _trigger(after, each.head_machine, here, footnotes)
            rows.append((each.policy, each.scope, name, was, now))
    head = ("policy", "scope", "trigger", against.name, "head")
    yield from section("Triggers that differ", Table(head, tuple(rows), notes=footnotes.notes, expendable=(0,)))


def _named_triggers(machine: MachineStatus | None) -> Mapping[str, TriggerStatus]:
    return {} if machine is None else {each.name: each for each in machine.triggers}


def _is_alike(one: TriggerStatus | None, other: TriggerStatus | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.signal, one.window, one.threshold, one.truth) == (
        other.signal,
        other.window,
        other.threshold,
        other.truth,
    )


def _trigger(
    trigger: TriggerStatus | None, machine: MachineStatus | None, money_of: Mapping[MoneyKey, MoneyHeadroom],
    footnotes: Footnotes,
) -> str:  # fmt: skip
    if trigger is None or machine is None:
        return "-"
    truth = "unknown" if trigger.truth is None else "true" if trigger.truth else "false"
    room = headroom_text(money_of.get((machine.policy, machine.scope, trigger.name)), footnotes)
    return f"{trigger.threshold or 'expression'}: {truth}" + ("" if room == "-" else f", {room}")


def _levels(found: Sequence[ScopeDifference], shown: Preview, against: AgainstSet) -> Iterator[Section]:
    """What each level would close under each set, where that is not the same."""
    here, there = _by_stage(shown, {}), _by_stage(against.preview, against.renamed)
    rows: list[tuple[str, ...]] = []
    for each in found:
        one, other = here.get((each.policy, each.scope), {}), there.get((each.policy, each.scope), {})
        for stage in dict.fromkeys((*other, *one)):
            was, now = _level(other.get(stage)), _level(one.get(stage))
            if was != now:
                rows.append((each.policy, each.scope, stage, was, now))
    head = ("policy", "scope", "stage", against.name, "head")
    yield from section("If a level fired now", Table(head, tuple(rows), expendable=(0,)))


def _by_stage(shown: Preview, renamed: Mapping[str, str]) -> Mapping[tuple[str, str], dict[str, LevelPreview]]:
    found: dict[tuple[str, str], dict[str, LevelPreview]] = {}
    for each in shown.levels:
        policy = renamed.get(each.decision.policy, each.decision.policy)
        found.setdefault((policy, each.decision.scope), {})[each.decision.stage or ""] = each
    return found


def _level(level: LevelPreview | None) -> str:
    if level is None:
        return "-"
    value = sum((each.value or Decimal(0) for each in level.expected), Decimal(0))
    book = level.decision.book
    net = "" if book is None or book.after.net is None else f", net {money(book.after.net)} after"
    orders = count_of(sum(each.orders for each in level.expected), "order")
    return f"level {level.decision.level}: {orders}, closes {money(value, level.currency)}{net}"


def _result(found: Sequence[ScopeDifference], same: int, against: AgainstSet) -> str:
    if not found:
        return f"Both sets decide the same on this snapshot ({count_of(same, 'scope')}). Nothing was changed."
    deciding = sum(bool(each.head) != bool(each.other) for each in found)
    fires = f"; {count_of(deciding, 'scope')} of them would decide something under one set only" if deciding else ""
    name = "the deployed set" if against.name == "deployed" else against.name
    return (
        f"Head and {name} differ on {count_of(len(found), 'scope')}{fires}; {same:,} are the same. Nothing was changed."
    )
