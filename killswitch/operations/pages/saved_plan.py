"""The page of `ksctl show FILE`: a saved plan as it is in its file, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from killswitch.model.decision import Book, Decision
from killswitch.model.legible import one_line
from killswitch.operations.pages.plan import execution_text
from killswitch.operations.pages.wording import ago, effect_parts, headline
from killswitch.planning.operator.plan_file import NO_INSTANT, AccountBasis, ReadPlan, SavedPlan
from killswitch.render.document import Facts, Items, Page, Section, Table, section
from killswitch.render.formats import count_of, exact, instant, money

POSITIONS_SHOWN = 40
"""Maximum positions and orders of an account on the page."""


def saved_plan_page(read: ReadPlan, name: str, now: datetime) -> Page:
    """What can be read of the plan in the file `name`; its problems come first and again in the result."""
    plan = read.plan
    problems = [*read.problems, *(f"cannot be read: {part}" for part in read.left_out)]
    warnings = section("What is wrong with this file", Items(tuple(one_line(each) for each in problems)))
    if plan is None:
        return Page("Saved plan", sections=(*warnings, Section("", ("Nothing of it can be read as a plan.",))))
    as_of = "unknown" if plan.as_of == NO_INSTANT else f"{instant(plan.as_of)}, {ago(plan.as_of, now)}"
    return Page(
        "Saved plan",
        facts=Facts((
            ("Plan", plan.short or "unknown"),
            ("As of", as_of),
            ("Policy set", plan.policy_set[:19] or "unknown"),
            ("Commit", plan.commit or "none"),
        )),
        sections=(
            *warnings,
            *(_decision(each) for each in plan.decisions),
            *(each for basis in plan.basis for each in _basis(basis)),
            Section("", (_result(plan, problems, name),)),
        ),
    )  # fmt: skip


def _decision(decision: Decision) -> Section:
    lines = [f"because {each.name}: {_reading(each.value)} against {each.threshold or 'its expression'}"
             for each in decision.triggers]  # fmt: skip
    lines += [f"note: {decision.reason}"] if decision.reason else []
    after = []
    if decision.unwinding is not None:
        after.append(f"execution: {execution_text(decision)}")
    if decision.book is not None:
        after += [f"book: {_book(decision.book.before)}", f"   →  {_book(decision.book.after)}"]
    parts = (Items(tuple(lines)), *effect_parts(decision.effects, None), Items(tuple(after)))
    return Section(headline(decision), tuple(part for part in parts if part != Items(())))


def _reading(value: tuple[str | None, str | None] | None) -> str:
    if value is None:
        return "-"
    low, high = value
    return f"{low}" if low == high and low is not None else f"{low or 'unknown'} to {high or 'unknown'}"


def _book(book: Book) -> str:
    return f"gross {money(book.gross)}, net {money(book.net)}"


def _basis(basis: AccountBasis) -> Iterator[Section]:
    """The account as it was seen: what must be unchanged when the plan is applied."""
    title = f"Based on account {basis.account}"
    if basis.unread is not None:
        yield Section(title, (f"It could not be read: {basis.unread}",))
        return
    positions = tuple(
        (each.symbol, each.side, exact(each.contracts), exact(each.mark_price), money(each.notional, basis.currency))
        for each in (basis.positions or ())[:POSITIONS_SHOWN]
    )
    orders = tuple(
        (each.id, each.symbol, each.side, exact(each.amount)) for each in (basis.orders or ())[:POSITIONS_SHOWN]
    )
    rest = sum(max(0, len(each or ()) - POSITIONS_SHOWN) for each in (basis.positions, basis.orders))
    yield Section(title, tuple(
        part for part in (
            Table(("symbol", "side", "contracts", "mark", "notional"), positions, (2, 3, 4)) if positions
            else "It held no position." if basis.positions is not None else "Its positions were unknown.",
            Table(("order", "symbol", "side", "amount"), orders, (3,), caption="Open orders") if orders
            else "It had no open order." if basis.orders is not None else "Its open orders were unknown.",
            f"and {count_of(rest, 'more row')} in the file" if rest else None,
        ) if part is not None
    ))  # fmt: skip


def _result(plan: SavedPlan, problems: list[str], name: str) -> str:
    what = f"{count_of(len(plan.decisions), 'decision')} on {count_of(len(plan.basis), 'account')}"
    if problems:
        return f"{what}. `ksctl apply` refuses this file: {one_line(problems[0])}"
    return f"{what}. `ksctl apply {name}` applies it, while nothing that it is based on has changed."
