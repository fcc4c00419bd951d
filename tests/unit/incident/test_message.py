"""What people are told, and who is told it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from msgspec import structs

from killswitch.cli.policy.explain_decision import DecisionHistory, decision_history_text
from killswitch.cli.wording import decision_lines
from killswitch.graph.nodes import PolicySet, SignalRef
from killswitch.graph.routing import MessageAttributes, Route, RouteRule, RouteTarget
from killswitch.incident.notify.message import Message, decision_message, decode_message, safe_line, trigger_texts
from killswitch.incident.notify.routing import NotificationRouter
from killswitch.incident.record.results import fold_result
from killswitch.model.decision import Attribution, Book, BookChange, Decision, Intent, LockOrder, Notice, TriggerReading
from killswitch.model.snapshot import Closing, Residual, Snapshot
from killswitch.model.words import ReferenceCurrency
from tests import graphs, worlds
from tests.outboxes import START

SUBJECT = MessageAttributes("fired", "page", "p", "account/main", 2, ("risk-desk",), (("owner", "desk"),))


def decision(**more: object) -> Decision:
    values: dict[str, object] = {
        "id": "d1", "as_of": START, "policy": "p", "policy_set": "sha256:0", "scope": "account/main",
        "mode": "enforce", "stage": "trim", "level": 2, "previous_level": 0,
        "triggers": (TriggerReading("fall", ("0.102", "0.102"), ">= 10%", START),),
        "attribution": Attribution("LONG", "0.8", "0.2", "15m"),
        "intents": (Intent("main", "BTC", "long", "sell", Decimal("0.75"), Decimal("0.25"), True, 1),),
        "lock": LockOrder("account/main", "reduce_only", None),
    }  # fmt: skip
    return Decision(**{**values, **more})  # type: ignore[arg-type]  # by name, as above


def test_a_firing_says_what_fell_against_what_and_what_is_closed() -> None:
    """The whole text, with the command that says more."""
    told = decision_message(decision(), SUBJECT, is_enforced=True)
    assert told.title == "[page] level 2 trim: p on account/main"
    assert told.body.splitlines() == [
        "fall: 10.20% against >= 10%, true since 2021-05-19T12:00:00Z",
        "the loss is LONG (long 80.0%, short 20.0%, over 15m)",
        "sell 0.75 BTC (long) on main, leaving 0.25",
        "lock account/main for reduce_only, until it is lifted",
        "see: ksctl explain d1",
    ]


def test_readings_are_written_as_the_policy_writes_its_thresholds() -> None:
    """In percent, where the record holds a fraction; what is partly known too."""
    fall = graphs.graph([SignalRef("equity.drawdown")], [graphs.trigger("fall", 0, 0.10)], [graphs.stage("trim", 1, 0)])
    (known,) = trigger_texts(graphs.policy_set(replace(fall, policy="p"))).values()
    readings = (
        TriggerReading("fall", ("0.102", "0.102"), "0.1", START),
        TriggerReading("fall", ("0", "1"), "0.1", START, "nothing was observed before"),
    )
    told = decision_message(
        decision(triggers=readings),
        SUBJECT,
        is_enforced=True,
        texts={("p", "fall"): structs.replace(known, threshold=">= 10%")},
    )
    assert told.body.splitlines()[:2] == [
        "fall: 10.20% against >= 10%, true since 2021-05-19T12:00:00Z",
        "fall: [0.00%, 100.00%] against >= 10%, true since 2021-05-19T12:00:00Z (nothing was observed before)",
    ]
    assert known.unit == "fraction"


def test_a_stage_that_is_about_no_loss_says_nothing_of_one() -> None:
    """No trigger of it has a window: whose loss it is was never asked."""
    nobody = Attribution("UNKNOWN", None, None, "", "no trigger of the stage has a window")
    about_none = decision(attribution=nobody)
    assert "the loss is" not in decision_message(about_none, SUBJECT, is_enforced=True).body
    assert not [line for line in decision_lines(about_none) if "the loss is" in line]
    explained = decision_history_text(DecisionHistory(about_none, None, None, fold_result(about_none, (), None)))
    assert "Who lost" not in explained


@pytest.mark.parametrize(
    ("cause", "title"),
    [
        (None, "[page] close by hand by ada: account/main"),
        ("operator", "[page] close by hand by ada: account/main"),
        ("exchange-breach", "[page] close by hand (exchange breach) by ada: account/main"),
        ("drill", "[page] DRILL: close by hand by ada: account/main"),
    ],
)
def test_a_close_by_hand_says_its_declared_reason(cause: str | None, title: str) -> None:
    """In the title, because a phone shows no more: above all that a drill is one."""
    by_hand = decision(kind="manual", stage=None, author="ada", cause=cause, reason="as agreed")
    assert decision_message(by_hand, SUBJECT, is_enforced=True).title == title


def test_hedges_and_hops_are_not_told_as_closes() -> None:
    """They leave nothing by themselves, and a hedge is named as one in the title."""
    first = decision().intents[0]
    hedge = structs.replace(first, purpose="hedge", target=Decimal(0))
    told = decision_message(decision(kind="hedge", stage=None, intents=(hedge,)), SUBJECT, is_enforced=True)
    assert told.title == "[page] temporary hedge: p on account/main"
    assert "sell 0.75 BTC (long) on main, as a temporary hedge" in told.body
    hop = structs.replace(first, purpose="hop", after=0)
    assert (
        "of the proceeds of an earlier order"
        in decision_message(decision(intents=(hop,)), SUBJECT, is_enforced=True).body
    )


def test_what_is_only_observed_says_that_nothing_was_done() -> None:
    """In the title and in the text."""
    told = decision_message(decision(), SUBJECT, is_enforced=False)
    assert told.title.endswith("(observed only: nothing was done)")
    assert "this run only observes and made no order, cancel or lock; the policy would do this:" in told.body


def test_many_orders_are_bounded() -> None:
    """Of forty positions fifteen, and how many more."""
    (one,) = decision().intents[:1]
    forty = tuple(structs.replace(one, symbol=f"S{number}") for number in range(40))
    told = decision_message(decision(intents=forty), SUBJECT, is_enforced=True)
    assert told.body.count("sell 0.75") == 15
    assert "and 25 more" in told.body


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\x1b[2J", "a\\nb\\r\\x1b[2J"),
        ("\u202etxt", "\\u202etxt"),
        ("\ud800", "\\ud800"),
        ("x" * 400, "x" * 299 + "…"),
        ("Ünï–code 😀", "Ünï–code 😀"),
    ],
)
def test_hostile_text_stays_one_visible_line(text: str, shown: str) -> None:
    """No line of an attacker's, no cursor, no hidden direction; what is printable stays."""
    assert safe_line(text) == shown


def test_hostile_names_make_no_line_of_their_own() -> None:
    """A symbol from a venue and a reason from a hand are text like any other."""
    bad = "BTC\nsee: rm -rf /"
    intent = Intent("main", bad, "long", "sell", Decimal(1), Decimal(0), True, 1)
    told = decision_message(decision(intents=(intent,), reason=bad, author=bad), SUBJECT, is_enforced=True)
    assert [line for line in told.body.splitlines() if line.startswith("see:")] == ["see: ksctl explain d1"]


RULE = RouteRule(None, None, None, None, None, None, ())


def addressing(
    *rules: RouteRule,
    targets: tuple[RouteTarget, ...] = (RouteTarget("log", "info"),),
    reference: ReferenceCurrency | None = None,
) -> NotificationRouter:
    stages = [
        replace(graphs.stage("trim", 2, 0), notify=("risk-desk",)),
        replace(graphs.stage("close", 3, 0), notify=("head",)),
    ]
    graph = replace(
        graphs.graph([SignalRef("equity.loss_from_start")], [graphs.trigger("fall", 0, 0.1)], stages, policy="p"),
        labels=(("owner", "desk"),),
    )
    graph = replace(graph, equity=replace(graph.equity, reference=reference))
    routes = tuple(Route(f"r{number}", rule, targets, 1, graphs.HERE) for number, rule in enumerate(rules))
    return NotificationRouter(PolicySet("sha256:0", None, (graph,), routes))


EVENTS = {
    "fired": lambda to: to.route_decision(decision(), is_enforced=True),
    "reset": lambda to: to.route_decision(
        decision(kind="reset", stage=None, level=0, previous_level=2), is_enforced=False
    ),
    "manual": lambda to: to.route_decision(
        decision(kind="manual", policy="operator", stage=None, level=0), is_enforced=True
    ),
    "closed": lambda to: to.route_closing(Closing("d1", "flat"), decision(), START),
    "residual": lambda to: to.route_closing(
        Closing("d1", "blocked", (Residual("main", "BTC", "long", Decimal(1)),)), decision(), START
    ),
    "notice": lambda to: to.route_notice(Notice(START, "p", "account/main", "unknown", "warning", "no data")),
    "own": lambda to: to.route_notice(Notice(START, "runner", "runner", "warning", "page", "no lock")),
}


@pytest.mark.parametrize(
    ("rule", "taken"),
    [
        (RULE, set(EVENTS)),
        (replace(RULE, notify=("risk-desk",)), {"fired", "reset", "closed", "residual", "notice"}),
        (replace(RULE, notify=("head",)), {"notice"}),
        (replace(RULE, least_level=2), {"fired", "reset", "closed", "residual"}),
        (replace(RULE, least_level=3), set()),
        (replace(RULE, severities=("page",)), {"fired", "manual", "residual", "own"}),
        (replace(RULE, severities=("warning",)), {"notice"}),
        (replace(RULE, events=("reset", "closed")), {"reset", "closed"}),
        (replace(RULE, policies=("runner",)), {"own"}),
        (replace(RULE, scopes=("account/main",)), set(EVENTS) - {"own"}),
        (replace(RULE, labels=(("owner", "desk"),)), {"fired", "reset", "closed", "residual", "notice"}),
        (replace(RULE, labels=(("owner", "desk"), ("tier", "a"))), set()),
    ],
)
def test_a_route_takes_what_has_everything_that_it_asks_for(rule: RouteRule, taken: set[str]) -> None:
    """A reset and the end of a close reach those who heard of the stage; what a message lacks is no match."""
    to = addressing(rule)
    assert {name for name, tell in EVENTS.items() if list(tell(to))} == taken


def told(to: NotificationRouter, event: str) -> list[Message]:
    return [decode_message(each.body) for each in EVENTS[event](to)]


def test_a_target_is_told_once_whatever_number_of_routes_lead_there() -> None:
    """Two routes, two targets: two messages with ids of their own, the same at every working out."""
    targets = (RouteTarget("log", "info"), RouteTarget("file", "/x"))
    to = addressing(RULE, RULE, targets=targets)
    found = list(EVENTS["fired"](to))
    assert [(each.route, each.target) for each in found] == [("r0", "log info"), ("r0", "file /x")]
    assert len({each.id for each in found}) == 2
    assert [each.id for each in EVENTS["fired"](to)] == [each.id for each in found]
    assert [message.id for message in told(to, "fired")] == [each.id for each in found]


def test_what_a_close_leaves_is_named() -> None:
    """Contracts, symbol, side and account; and a close at target says so."""
    (left,), (flat,) = told(addressing(RULE), "residual"), told(addressing(RULE), "closed")
    assert left.title == "[page] the close ended blocked: level 2 trim: p on account/main"
    assert "left: 1 BTC long on main" in left.body
    assert flat.title == "[info] the close is at its target: level 2 trim: p on account/main"


def test_a_notice_for_the_record_is_not_sent() -> None:
    """Info is what nobody need read."""
    assert list(addressing(RULE).route_notice(Notice(START, "p", "s", "warning", "info", "x"))) == []


def test_a_close_that_goes_on_is_no_message() -> None:
    """Only its end is."""
    assert list(addressing(RULE).route_closing(Closing("d1", "closing"), decision(), START)) == []


def test_amounts_have_the_currency_of_the_accounts_or_of_the_policy() -> None:
    """The book by the policy's reference currency, else that of its accounts; a cost by that of the accounts closed."""
    book = BookChange(Book(Decimal(1000), Decimal(-50), None), Book(Decimal(900), None, None))
    decided, snapshot, to = decision(book=book), worlds.snapshot(START, worlds.account("1000")), addressing(RULE)
    mixed = structs.replace(snapshot, accounts=(*snapshot.accounts, worlds.account("5", name="b", currency="EUR")))
    portfolio = structs.replace(decided, scope="portfolio/all")

    def last_lines(routes: NotificationRouter, about: Decision, seen: Snapshot | None) -> list[str]:
        fired = routes.route_decision(about, seen, is_enforced=True)
        ended = routes.route_closing(Closing("d1", "flat", cost=Decimal("1.5")), about, START, seen)
        return [decode_message(each.body).body.splitlines()[-2] for each in (*fired, *ended)]

    assert last_lines(to, decided, snapshot) == [
        "gross 1,000.00 → 900.00 USDT, net -50.00 → unknown",
        "fees and slippage so far: 1.50 USDT",
    ]
    in_euros = addressing(RULE, reference=ReferenceCurrency("EUR", 1, Decimal("0.01"), ()))
    assert last_lines(in_euros, decided, snapshot) == [
        "gross 1,000.00 → 900.00 EUR, net -50.00 → unknown",
        "fees and slippage so far: 1.50 USDT",
    ]
    assert last_lines(to, decided, None) == [
        "gross 1,000.00 → 900.00, net -50.00 → unknown", "fees and slippage so far: 1.50",
    ]  # fmt: skip
    assert last_lines(to, portfolio, mixed) == [
        "gross 1,000.00 → 900.00, net -50.00 → unknown", "fees and slippage so far: 1.50 USDT",
    ]  # fmt: skip
