"""Notification messages: their text, and their routes."""

from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet, SignalRef
from killswitch.graph.routing import MessageAttributes, Route, RouteRule, RouteTarget
from killswitch.incident.notify.message import Message, decision_message, decode_message, safe_line, trigger_texts
from killswitch.incident.notify.routing import NotificationRouter
from killswitch.incident.record.results import fold_result
from killswitch.model.decision import Attribution, Book, BookChange, Decision, Intent, LockOrder, Notice, TriggerReading
from killswitch.model.snapshot import Closing, Residual, Snapshot
from killswitch.model.words import ReferenceCurrency
from killswitch.operations.pages.decision import DecisionHistory
from tests import graphs, worlds
from tests.outboxes import START
from tests.shown import decision_history_text, decision_lines

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


def test_the_message_of_a_firing_names_value_threshold_and_orders() -> None:
    """The whole text, with the command that shows more."""
    message = decision_message(decision(), SUBJECT, is_enforced=True)
    assert message.title == "[page] level 2 trim: p on account/main"
    assert message.body.splitlines() == [
        "fall: 10.20% against >= 10%, true since 2021-05-19T12:00:00Z",
        "the loss is LONG (long 80.0%, short 20.0%, over 15m)",
        "sell 0.75 BTC (long) on main, leaving 0.25",
        "lock account/main for reduce_only, until it is lifted",
        "see: ksctl explain d1",
    ]


def test_trigger_values_are_formatted_like_the_thresholds_of_the_policy() -> None:
    """In per cent where the record holds a fraction, also for a partly known value."""
    fall = graphs.graph([SignalRef("equity.drawdown")], [graphs.trigger("fall", 0, 0.10)], [graphs.stage("trim", 1, 0)])
    (known,) = trigger_texts(graphs.policy_set(replace(fall, policy="p"))).values()
    readings = (
        TriggerReading("fall", ("0.102", "0.102"), "0.1", START),
        TriggerReading("fall", ("0", "1"), "0.1", START, "nothing was observed before"),
    )
    message = decision_message(
        decision(triggers=readings),
        SUBJECT,
        is_enforced=True,
        texts={("p", "fall"): replace(known, threshold=">= 10%")},
    )
    assert message.body.splitlines()[:2] == [
        "fall: 10.20% against >= 10%, true since 2021-05-19T12:00:00Z",
        "fall: [0.00%, 100.00%] against >= 10%, true since 2021-05-19T12:00:00Z (nothing was observed before)",
    ]
    assert known.unit == "fraction"


def test_a_stage_without_a_window_has_no_attribution_of_the_loss() -> None:
    """No trigger of it has a window, so its message has no line on the loss."""
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
def test_the_title_of_a_manual_close_names_its_declared_cause(cause: str | None, title: str) -> None:
    """A phone shows only the title, so it says above all that a drill is a drill."""
    manual_close = decision(kind="manual", stage=None, author="ada", cause=cause, reason="as agreed")
    assert decision_message(manual_close, SUBJECT, is_enforced=True).title == title


def test_hedges_and_hops_are_not_described_as_closes() -> None:
    """Their lines have no remaining quantity, and the title names a hedge as such."""
    first = decision().intents[0]
    hedge = replace(first, purpose="hedge", target=Decimal(0))
    message = decision_message(decision(kind="hedge", stage=None, intents=(hedge,)), SUBJECT, is_enforced=True)
    assert message.title == "[page] temporary hedge: p on account/main"
    assert "sell 0.75 BTC (long) on main, as a temporary hedge" in message.body
    hop = replace(first, purpose="hop", after=0)
    assert (
        "of the proceeds of an earlier order"
        in decision_message(decision(intents=(hop,)), SUBJECT, is_enforced=True).body
    )


def test_the_message_of_an_observed_decision_says_that_nothing_was_done() -> None:
    """In the title and in the text."""
    message = decision_message(decision(), SUBJECT, is_enforced=False)
    assert message.title.endswith("(observed only: nothing was done)")
    assert "this run only observes and made no order, cancel or lock; the policy would do this:" in message.body


def test_a_long_list_of_orders_is_cut_off() -> None:
    """Of forty positions fifteen are listed, and the others counted."""
    (intent,) = decision().intents[:1]
    forty = tuple(replace(intent, symbol=f"S{number}") for number in range(40))
    message = decision_message(decision(intents=forty), SUBJECT, is_enforced=True)
    assert message.body.count("sell 0.75") == 15
    assert "and 25 more" in message.body


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\nb\r\x1b[2J", "a\\nb\\r\\x1b[2J"),
        ("\u202etxt", "\\u202etxt"),
        ("\ud800", "\\ud800"),
        ("x" * 400, "x" * 299 + "…"),
        ("Ünï–code 😀", "Ünï–code 😀"),
    ],
)
def test_hostile_text_stays_one_visible_line(text: str, escaped: str) -> None:
    """Line breaks, cursor and direction controls are escaped; printable text stays."""
    assert safe_line(text) == escaped


def test_hostile_names_add_no_line() -> None:
    """A symbol from a venue and a reason from an operator are escaped like any other text."""
    bad = "BTC\nsee: rm -rf /"
    intent = Intent("main", bad, "long", "sell", Decimal(1), Decimal(0), True, 1)
    message = decision_message(decision(intents=(intent,), reason=bad, author=bad), SUBJECT, is_enforced=True)
    assert [line for line in message.body.splitlines() if line.startswith("see:")] == ["see: ksctl explain d1"]


RULE = RouteRule(None, None, None, None, None, None, ())


def router(
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
    "fired": lambda routes: routes.route_decision(decision(), is_enforced=True),
    "reset": lambda routes: routes.route_decision(
        decision(kind="reset", stage=None, level=0, previous_level=2), is_enforced=False
    ),
    "manual": lambda routes: routes.route_decision(
        decision(kind="manual", policy="operator", stage=None, level=0), is_enforced=True
    ),
    "closed": lambda routes: routes.route_closing(Closing("d1", "flat"), decision(), START),
    "residual": lambda routes: routes.route_closing(
        Closing("d1", "blocked", (Residual("main", "BTC", "long", Decimal(1)),)), decision(), START
    ),
    "notice": lambda routes: routes.route_notice(Notice(START, "p", "account/main", "unknown", "warning", "no data")),
    "own": lambda routes: routes.route_notice(Notice(START, "runner", "runner", "warning", "page", "no lock")),
}


@pytest.mark.parametrize(
    ("rule", "expected"),
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
def test_a_route_takes_messages_that_match_all_its_conditions(rule: RouteRule, expected: set[str]) -> None:
    """A reset and the end of a close reach the recipients of the stage; an absent attribute does not match."""
    routes = router(rule)
    assert {name for name, route in EVENTS.items() if list(route(routes))} == expected


def messages_of(routes: NotificationRouter, event: str) -> list[Message]:
    return [decode_message(each.body) for each in EVENTS[event](routes)]


def test_each_target_of_each_route_gets_one_message_with_a_stable_id() -> None:
    """Two routes, two targets: two messages with their own ids, the same at every evaluation."""
    targets = (RouteTarget("log", "info"), RouteTarget("file", "/x"))
    routes = router(RULE, RULE, targets=targets)
    found = list(EVENTS["fired"](routes))
    assert [(each.route, each.target) for each in found] == [("r0", "log info"), ("r0", "file /x")]
    assert len({each.id for each in found}) == 2
    assert [each.id for each in EVENTS["fired"](routes)] == [each.id for each in found]
    assert [message.id for message in messages_of(routes, "fired")] == [each.id for each in found]


def test_the_message_of_a_close_names_the_remaining_position() -> None:
    """Contracts, symbol, side and account; a close at its target says so."""
    (left,), (flat,) = messages_of(router(RULE), "residual"), messages_of(router(RULE), "closed")
    assert left.title == "[page] the close ended blocked: level 2 trim: p on account/main"
    assert "left: 1 BTC long on main" in left.body
    assert flat.title == "[info] the close is at its target: level 2 trim: p on account/main"


def test_an_info_notice_is_not_sent() -> None:
    """Severity info is for the record only."""
    assert list(router(RULE).route_notice(Notice(START, "p", "s", "warning", "info", "x"))) == []


def test_a_close_in_progress_sends_no_message() -> None:
    """Only its end is a message."""
    assert list(router(RULE).route_closing(Closing("d1", "closing"), decision(), START)) == []


def test_amounts_have_the_currency_of_the_accounts_or_of_the_policy() -> None:
    """The book by the policy's reference currency, else that of its accounts; a cost by that of the accounts closed."""
    book = BookChange(Book(Decimal(1000), Decimal(-50), None), Book(Decimal(900), None, None))
    decided, snapshot, routes = decision(book=book), worlds.snapshot(START, worlds.account("1000")), router(RULE)
    mixed = replace(snapshot, accounts=(*snapshot.accounts, worlds.account("5", name="b", currency="EUR")))
    portfolio = replace(decided, scope="portfolio/all")

    def last_lines(
        routes: NotificationRouter, closed_decision: Decision, snapshot_at_end: Snapshot | None
    ) -> list[str]:
        fired = routes.route_decision(closed_decision, snapshot_at_end, is_enforced=True)
        ended = routes.route_closing(
            Closing("d1", "flat", cost=Decimal("1.5")), closed_decision, START, snapshot_at_end
        )
        return [decode_message(each.body).body.splitlines()[-2] for each in (*fired, *ended)]

    assert last_lines(routes, decided, snapshot) == [
        "gross 1,000.00 → 900.00 USDT, net -50.00 → unknown",
        "fees and slippage so far: 1.50 USDT",
    ]
    in_euros = router(RULE, reference=ReferenceCurrency("EUR", 1, Decimal("0.01"), ()))
    assert last_lines(in_euros, decided, snapshot) == [
        "gross 1,000.00 → 900.00 EUR, net -50.00 → unknown",
        "fees and slippage so far: 1.50 USDT",
    ]
    assert last_lines(routes, decided, None) == [
        "gross 1,000.00 → 900.00, net -50.00 → unknown", "fees and slippage so far: 1.50",
    ]  # fmt: skip
    assert last_lines(routes, portfolio, mixed) == [
        "gross 1,000.00 → 900.00, net -50.00 → unknown", "fees and slippage so far: 1.50 USDT",
    ]  # fmt: skip
