"""Generates docs/protections.md: what can go wrong and which document answers it, from registries and shipped sets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from killswitch.graph.compile import compile_loaded
from killswitch.model.instant import HOUR
from killswitch.policy.kinds import KINDS, TESTS
from killswitch.policy.loader import load
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.guides import FIELD_WORDS
from tools.reference.markdown import page, sentence, table

POLICIES = Path(__file__).parents[2] / "policies"

INTRODUCTION = """\
What can go wrong with a book, and which document answers it. Signals are measured by the triggers of a
[Policy](reference/policy.md), whose stages lock, cancel and close; the last column names the
[shipped sets](index.md#where-to-look) that already do. The rest has kinds of document of its own.
[What it does not protect against](index.md#what-it-does-not-protect-against) is listed too, and so is
[what cannot be declared yet](reference/not-yet.md)."""


class Danger(Struct, frozen=True):
    """Something that goes wrong, the kind of document that answers it, and what that declares, with names as code."""

    what: str
    kind: str
    how: str
    hours: tuple[int, int] | None = None
    """The shortest and the longest window of its signals, where it is about a length of time."""


DANGERS: tuple[Danger, ...] = (
    Danger("The account falls within minutes or an hour", "Policy", "`equity.drawdown` over 15m and 1h", (0, 2)),
    Danger("It falls all day, and no hour shows it", "Policy",
           "`equity.drawdown` over 24h, `equity.loss_since` today", (12, 24)),
    Danger("It bleeds for days", "Policy", "`equity.drawdown` over 48h", (48, 999)),
    Danger("The capital is lost in steps", "Policy", "`equity.loss_from_start`, `equity.loss_from_capital`"),
    Danger("One position is too large", "Policy", "`exposure.largest_share`; `share_cap` of a close"),
    Danger("One position loses too much", "Policy", "`positions.worst_loss`, `positions.worst_bleed`"),
    Danger("A position is near its liquidation", "Policy",
           "`exposure.liquidation_distance`, `exposure.liquidation_buffer`; `where` of a close"),
    Danger("Leverage grows while nobody trades", "Policy",
           "`exposure.leverage`, `exposure.margin_ratio`; `reduce`, down to a declared leverage"),
    Danger("Margin runs out, and another account has some", "Policy",
           "`exposure.margin_ratio`; `top_up_margin`, within a declared bound"),
    Danger("A hedged book depends on the market after all", "Policy",
           "`exposure.net`, `exposure.imbalance`; `neutralise`, with the fewest orders that reduce"),
    Danger("A close leaves the rest of the book naked", "Policy",
           "`net_exposure`: what each stage leaves, and the orders that would take it out"),
    Danger("The venue liquidates or deleverages", "Policy", "`fills.closed_by_venue`, `positions.adl_rank`"),
    Danger("The venue answers late, wrongly or not at all", "Policy",
           "`venue.error_rate`, `venue.latency`, `venue.age`"),
    Danger("Prices are old, or sources disagree", "Policy", "`market.price_age`, `market.venue_gap`, `market.quorum`"),
    Danger("A stable coin loses its peg", "Policy", "`market.peg_deviation`"),
    Danger("Withdrawals are suspended", "Policy", "`venue.withdrawals_suspended`, `venue.equity_share`"),
    Danger("A bot runs away", "Policy", "`orders.rate`, `orders.largest_share`, `exposure.turnover`"),
    Danger("A bot is dead, and its positions are not", "Policy", "`heartbeat.age`"),
    Danger("A bot, its host or the runner is silent", "DeadMansSwitch",
           "`at_venue: false`: who must be heard, and a close by `ksctl deadman watch`"),
    Danger("One market must not be traded, and the rest may go on", "Policy",
           "`lock_trading` with `symbols`, or `positions: closed`"),
    Danger("A bot ignores the lock", "Policy", "`on_breach: close` of a stage"),
    Danger("Trades lose again and again", "Policy", "`trades.count`, `trades.losing_streak`, `trades.drawdown`"),
    Danger("The side that loses is closed, and its hedge stays", "Ranking", "component risk; `spread` in the close"),
    Danger("One leg of a hedge is gone", "HedgeGroup", "the legs, for `hedge.broken`"),
    Danger("One leg of a hedge is closed, and the other stays", "HedgeGroup", "the legs, which are cut in one ratio"),
    Danger("An order is too large, or one too many", "Limits", "what an order must pass before it is sent"),
    Danger("A desk is back at full size a minute after the reset", "RecoveryPlan",
           "steps, each after watched time without a warning"),
    Danger("One strategy of several goes wrong", "Strategy", "what it owns; a policy with `each: strategy`"),
    Danger("Everything moves together", "CorrelationGroup",
           "the members, or an `estimate` of who moves together, for `exposure.group_share`"),
    Danger("A close makes the book riskier on its way", "Unwinding", "`slices` with a pace; `order` in the close"),
    Danger("A close finds an empty order book", "Unwinding",
           "bounds around the mark, slices, a ladder that ends at market"),
    Danger("A close by hand goes at any price", "Unwinding", "`reasons: [operator]` with bounds of your own"),
    Danger("A halted position cannot be closed", "Unwinding", "`hedge`: suggested, or opened within a bound"),
    Danger("The runner dies, and its orders rest at the venue", "DeadMansSwitch", "`at_venue: true`"),
    Danger("The runner is dead, and the price goes on falling", "CatastropheStop", "`distance` from the entry"),
    Danger("Nobody hears of it", "NotificationRoute", "targets by level and name"),
    Danger("A page reaches the wrong desk, or a hundred pages say one thing", "NotificationTree",
           "routes by label, grouping, mute times and inhibition"),
    Danger("Planned work pages all night", "Silence", "what is silent until when, by whom and why"),
    Danger("The engineer on call does not know what to do", "Runbook", "template, contacts and escalation"),
    Danger("The market is closed", "Session", "its hours; `outside_hours` of an `Account`"),
    Danger("A key may withdraw", "Account", "`ksctl venues check` refuses it"),
    Danger("A change makes the policies softer", "Invariant", "what must hold; `ksctl prove --against`"),
    Danger("Nobody has tried it on the machines that run it", "Drill", "what is rehearsed where, and what must follow"),
    Danger("A policy does not do what was meant", "Scenario", "what happens, and what must be done about it"),
)  # fmt: skip
"""In the order of the page. A kind of document that none names has a row with its own description."""


def protections_page() -> str:
    """The page: dangers with their documents, further kinds, and every word of the field with its signals."""
    used = signals_of_sets(POLICIES)
    rows = [(each.what, _kind(each.kind), _linked(each.how), _sets(each.how, used, each.hours)) for each in DANGERS]
    named = {each.kind for each in DANGERS}
    rows += [(_about(kind), _kind(kind), "", "") for kind in KINDS if kind not in named | TESTS]
    words = [(word, _linked(signals), _sets(signals, used, None)) for word, signals in FIELD_WORDS]
    parts = [
        "## By what goes wrong",
        table(("what can go wrong", "document", "what it declares", "shipped in"), rows),
        "## By the field's word",
        "What a trigger can watch, by what it is usually called; the [catalogue](reference/signals.md) has all of it.",
        table(("what it is called", "signals of a Policy", "shipped in"), words),
    ]
    return page("What can go wrong, and which document answers it", INTRODUCTION, parts)


Used = Mapping[str, frozenset[tuple[str, int | None]]]
"""Shipped set → the signals that its triggers read, with their windows in hours, rounded up."""


def signals_of_sets(policies: Path) -> Used:
    """What each shipped set reads. ValueError for a set that does not compile."""
    return {each.parent.name: frozenset(_read(each.parent)) for each in sorted(policies.glob("*/policy.yaml"))}


def _read(folder: Path) -> Iterator[tuple[str, int | None]]:
    compiled, problems = compile_loaded(load([folder]))
    if compiled is None:
        raise ValueError(f"{folder} does not compile: {problems}")
    for graph in compiled.graphs:
        yield from ((each.name, None if each.window is None else -(-each.window // HOUR)) for each in graph.signals)


def _sets(text: str, used: Used, hours: tuple[int, int] | None) -> str:
    """The sets that read a signal which the text names, over a window within `hours` where that is given."""
    wanted = {name for name in re.findall(r"\b[a-z_]+\.[a-z_]+\b", text) if name in BY_NAME}
    least, most = hours or (0, 0)

    def fits(signal: str, window: int | None) -> bool:
        return signal in wanted and (hours is None or window is None or least <= window <= most)

    return ", ".join(f"`{name}`" for name, signals in used.items() if any(fits(*each) for each in signals))


def _linked(text: str) -> str:
    """The text with its signals linked to the catalogue, and its kinds of document to their reference."""

    def link(found: re.Match[str]) -> str:
        name = found[1]
        if name in BY_NAME:
            return f"[`{name}`](reference/signals.md#{re.sub(r'[._]', '-', name)})"
        return f"[{name}](reference/policy.md#{name.lower()})" if name in KINDS else found[0]

    return re.sub(r"`([^`]+)`", link, text)


def _kind(kind: str) -> str:
    return f"[{kind}](reference/policy.md#{kind.lower()})"


def _about(kind: str) -> str:
    """The kind by its own description, for one that no danger names."""
    return sentence((KINDS[kind].__doc__ or kind).partition("\n")[0])
