"""Notification messages: their text, and their routes."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import AutoReset, PolicySet, ScopeRule, SignalRef
from killswitch.graph.routing import MessageAttributes, NotificationRoot, Receiver, Route, RouteRule, RouteTarget
from killswitch.incident.notify.message import (
    Message,
    MessageContext,
    decision_message,
    decode_message,
    fit_message,
    notice_message,
    safe_line,
    trigger_texts,
)
from killswitch.incident.notify.routing import NotificationRouter, outlook
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.document import Person, RunbookFacts
from killswitch.incident.record.first_minute import next_stage_text
from killswitch.incident.record.results import fold_result
from killswitch.incident.record.source_places import TriggerText, WrittenAt, ladder_of
from killswitch.model.decision import (
    Attribution,
    BaseExposure,
    Book,
    BookChange,
    Decision,
    HedgeOption,
    HedgeOrder,
    Intent,
    LockOrder,
    NetExposure,
    Notice,
    TriggerReading,
)
from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.snapshot import Closing, Position, Residual, Snapshot
from killswitch.model.words import ReferenceCurrency
from killswitch.operations.pages.decision import DecisionHistory
from killswitch.valuation.ownership import StrategyRule
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
    assert message.title == "[page] level 2 trim: p on account/main (live)"
    assert message.body.splitlines() == [
        "when    2021-05-19T12:00:00Z (UTC); nothing here is newer",
        "loss    unknown: no trigger that fired measures a fall from a peak; equity unknown: no snapshot was read",
        "doing   1 order for 1 position, none is sent yet; lock account/main reduce_only until it is lifted",
        "left    net exposure unknown: the decision was made without a book",
        "worst   unknown: no snapshot was read",
        "orders  unknown: no snapshot was read",
        "report  ksctl report d1",
        "next    ksctl status",
        "",
        "Why",
        "  fall: 10.20% against >= 10%",
        "  the loss is LONG: long 80.0%, short 20.0%, over 15m",
        "",
        "Decided",
        "  sell 0.75 BTC (long) on main, leaving 0.25",
        "  lock account/main for reduce_only, until it is lifted",
        "",
        "see: ksctl explain d1",
    ]


NAKED = NetExposure(
    "BTC", "USDT", Decimal("5280"), (BaseExposure("ETH", Decimal(50), Decimal(88), Decimal("1.2"), Decimal(5280), 60),),
    (
        HedgeOption("reduce", "yes", (HedgeOrder("main", "ETH", "sell", Decimal(50), Decimal(88), Decimal(4400)),),
                    Decimal(0), Decimal("0.25"), Decimal(3), ("impact",)),
        HedgeOption("open", "unknown", why=("the free margin of the account is unknown",)),
    ), before=Decimal(-3720),
)  # fmt: skip


def test_the_message_of_a_firing_states_what_it_leaves_exposed_and_what_would_take_that_out() -> None:
    """And `explain` the same, with what it comes from; a policy that declares nothing has neither."""
    left = [
        "Net exposure to BTC by beta: 5,280.00 USDT, -3,720.00 USDT before",
        "To reduce it: sell 50 ETH on main (4,400.00 USDT at 88): leaves 0.00 USDT, variance 0.25 × the present one, "
        "cost 3.00 USDT without impact",
        "To open against it: unknown: the free margin of the account is unknown",
    ]
    naked = decision(net_exposure=NAKED)
    lines = decision_message(naked, SUBJECT, is_enforced=True).body.splitlines()
    assert [line.strip() for line in lines if line.startswith("  left: ")] == [f"left: {each}" for each in left]
    explained = decision_history_text(DecisionHistory(naked, None, None, fold_result(naked, (), None)))
    assert "Left exposed to the market; nothing is sent for it" in explained
    assert "ETH 50 at 88: beta 1.2, 5,280.00 USDT" in explained
    nothing = decision_history_text(DecisionHistory(decision(), None, None, fold_result(decision(), (), None)))
    assert "exposed" not in nothing


def test_an_exposure_that_is_unknown_says_why() -> None:
    naked = decision(net_exposure=NetExposure("BTC", "USDT", unknown="a part of the book cannot be read"))
    body = decision_message(naked, SUBJECT, is_enforced=True).body
    assert "left: Net exposure to BTC by beta: unknown, because a part of the book cannot be read" in body


FALL = TriggerText(WrittenAt("p.yaml", 1, ""), "equity.drawdown", "fraction", ">= 10%", "15m")


def first_lines(message: Message) -> dict[str, str]:
    """The lines above the first empty one, by their labels."""
    lines = message.body.split("\n\n")[0].splitlines()
    return {name: value.strip() for name, _, value in (line.partition(" ") for line in lines)}


def test_the_first_lines_of_a_stage_without_orders_promise_no_fill() -> None:
    """Its `where` selected nothing: what is open stays, and there is no order whose fill would change that."""
    book = BookChange(Book(Decimal(900), Decimal(500), None), Book(Decimal(900), Decimal(500), None))
    context = MessageContext(currency="USDT")
    message = decision_message(replace(decision(book=book), intents=()), SUBJECT, context, is_enforced=True)
    assert first_lines(message)["left"] == "net long 500.00, gross 900.00 USDT: this closes nothing"


def test_the_first_five_lines_say_what_a_person_needs_in_the_first_minute() -> None:
    """A fall of 20% to 800 was one from 1,000; the commands and the files are complete with their store."""
    context = MessageContext(
        StartedAs("/var/ks.sqlite"), {("p", "fall"): FALL}, worlds.snapshot(START, worlds.account("800")), "USDT", "d0"
    )
    book = BookChange(Book(Decimal(900), Decimal(500), None), Book(Decimal(300), Decimal(-20), None))
    fall = (TriggerReading("fall", ("0.2", "0.2"), "0.1", START),)
    message = decision_message(decision(triggers=fall, book=book), SUBJECT, context, is_enforced=True)
    assert message.title == "[page] level 2 trim: p on account/main (paper, live)"
    assert first_lines(message) == {
        "when": "2021-05-19T12:00:00Z (UTC); nothing here is newer",
        "loss": "20.00% in 15m, 200.00 USDT: equity 1,000.00 before, 800.00 USDT now",
        "doing": "1 order for 1 position, none is sent yet; lock account/main reduce_only until it is lifted",
        "left": "net short 20.00, gross 300.00 USDT once every order is filled; now net long 500.00, gross 900.00 USDT",
        "worst": "no position is open",
        "orders": "no order rests",
        "read": "runbook-trim.md, report.md (or .html) in /var/ks.sqlite.incidents/d0",
        "next": "ksctl status --store /var/ks.sqlite",
    }
    observed = decision_message(decision(triggers=fall, book=book), SUBJECT, context, is_enforced=False)
    assert first_lines(observed)["doing"].startswith("nothing, this run only observes; the policy would do: 1 order")
    assert first_lines(observed)["left"] == "net long 500.00, gross 900.00 USDT: unchanged"


def test_what_is_left_names_a_position_whose_market_takes_no_orders() -> None:
    """It is known when the page is written: a reader who takes 0 for granted does not look at the venue."""
    book = BookChange(Book(Decimal(900), Decimal(500), None), Book(Decimal(0), Decimal(0), None))
    halted = Notice(START, "p", "account/main", "blocked", "page", "BTC is halted at the venue", subject="BTC")
    others = [replace(halted, severity="warning", text="dust"), replace(halted, scope="account/x", text="elsewhere")]
    seen = worlds.snapshot(START, worlds.account("800"))
    routes = router(RULE)
    (found,) = routes.announce_decision(decision(book=book), seen, is_enforced=True, notices=[halted, *others])
    assert first_lines(decode_message(found.content))["left"] == (
        "net 0.00, gross 0.00 USDT once every order is filled, but not now: BTC is halted at the venue; "
        "now net long 500.00, gross 900.00 USDT"
    )


@pytest.mark.parametrize(
    ("value", "equity", "loss"),
    [
        (("0.2", "1"), "800", "at least 20.00% in 15m, 200.00 USDT or more: equity 1,000.00 before, 800.00 USDT now"),
        (("0.2", "0.2"), None, "20.00% in 15m, in money unknown; equity unknown: main is unreachable: timeout"),
        ((None, None), "800", "unknown: no trigger that fired measures a fall from a peak; equity 800.00 USDT now"),
    ],
)
def test_an_unknown_part_of_the_loss_has_its_reason(
    value: tuple[str | None, str | None], equity: str | None, loss: str
) -> None:
    """It is not left out, and not 0."""
    account = worlds.account("800")
    if equity is None:
        account = replace(account, equity=None, quality="unreachable", reason="timeout")
    context = MessageContext(texts={("p", "fall"): FALL}, snapshot=worlds.snapshot(START, account))
    fall = (TriggerReading("fall", value, "0.1", START),)
    message = decision_message(decision(triggers=fall), SUBJECT, context, is_enforced=True)
    assert first_lines(message)["loss"] == loss


def test_trigger_values_are_formatted_like_the_thresholds_of_the_policy() -> None:
    """In per cent where the record holds a fraction, also for a partly known value."""
    fall = graphs.graph(
        [SignalRef("equity.drawdown", (15 * MINUTE,))], [graphs.trigger("fall", 0, 0.10)], [graphs.stage("trim", 1, 0)]
    )
    (known,) = trigger_texts(graphs.policy_set(replace(fall, policy="p"))).values()
    readings = (
        TriggerReading("fall", ("0.102", "0.102"), "0.1", START),
        TriggerReading("fall", ("0", "1"), "0.1", START, "nothing was observed before"),
    )
    context = MessageContext(texts={("p", "fall"): replace(known, threshold=">= 10%")})
    message = decision_message(decision(triggers=readings), SUBJECT, context, is_enforced=True)
    assert [line for line in message.body.splitlines() if line.startswith("  fall")] == [
        "  fall: 10.20% against >= 10%",
        "  fall: at least 0.00% against >= 10%: nothing was observed before",
    ]
    assert known.unit == "fraction"


def test_a_short_history_is_explained_once() -> None:
    """What it means for the fall, and for the side that lost only that the reason is the same."""
    young = "history reaches back 36 s of 15 min"
    side = Attribution("UNKNOWN", None, None, "15m", f"{young}; what the stage closes does not depend on it")
    fall = TriggerReading("fall", ("0.1011", "1"), "0.1", START, young)
    context = MessageContext(texts={("p", "fall"): FALL})
    body = decision_message(decision(triggers=(fall,), attribution=side), SUBJECT, context, is_enforced=True).body
    assert body.partition("Why\n")[2].splitlines()[:2] == [
        "  fall: at least 10.11% against >= 10%: the run had seen 36 s of the 15 min: the true peak may be higher, the "
        "fall is at least this",
        "  which side lost is UNKNOWN over 15m: for the same reason; what the stage closes does not depend on it",
    ]
    other = replace(side, reason="a gap of 9 s lies in the window")
    body = decision_message(decision(triggers=(fall,), attribution=other), SUBJECT, context, is_enforced=True).body
    assert "over 15m: a gap of 9 s lies in the window" in body


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
        (None, "[page] close by hand by ada: account/main (live)"),
        ("operator", "[page] close by hand by ada: account/main (live)"),
        ("exchange-breach", "[page] close by hand (exchange breach) by ada: account/main (live)"),
        ("dead-man", "[page] dead-man close by ada: account/main (live)"),
        ("drill", "[page] DRILL: close by hand by ada: account/main (live)"),
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
    assert message.title == "[page] temporary hedge: p on account/main (live)"
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
EVERYTHING = Route("all", RULE, (RouteTarget("log", "info"),), 1, graphs.HERE)


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
    assert left.title == "[page] LEFT 1 BTC long on main (blocked): level 2 trim: p on account/main"
    assert first_lines(left)["left"] == "1 BTC long on main; positions of the scope unknown"
    assert flat.title == "[info] AT TARGET: level 2 trim: p on account/main"


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

    def amounts(routes: NotificationRouter, closed_decision: Decision, snapshot_at_end: Snapshot | None) -> list[str]:
        fired = routes.route_decision(closed_decision, snapshot_at_end, is_enforced=True)
        ended = routes.route_closing(
            Closing("d1", "flat", cost=Decimal("1.5")), closed_decision, START, snapshot_at_end
        )
        lines = first_lines(decode_message(next(fired).body))
        return [lines["left"], first_lines(decode_message(next(ended).body))["result"].rpartition("; ")[2]]

    left = "net unknown, gross 900.00{0} once every order is filled; now net short 50.00, gross 1,000.00{0}"
    assert amounts(routes, decided, snapshot) == [left.format(" USDT"), "cost 1.50 USDT"]
    in_euros = router(RULE, reference=ReferenceCurrency("EUR", 1, Decimal("0.01"), ()))
    assert amounts(in_euros, decided, snapshot) == [left.format(" EUR"), "cost 1.50 USDT"]
    assert amounts(routes, decided, None) == [left.format(""), "cost 1.50"]
    assert amounts(routes, portfolio, mixed) == [left.format(""), "cost 1.50 USDT"]


def test_the_end_of_a_close_is_flat_only_where_the_scope_holds_nothing() -> None:
    """What the venue shows decides: no position, one that was to stay, or none that could be read."""
    nothing = replace(worlds.account("800"), positions=())
    held = replace(nothing, positions=(Position("BTC", "long", Decimal(1)),))
    unread = replace(nothing, positions=None)
    titles = [
        decode_message(each.body).title
        for account in (nothing, held, unread)
        for each in router(RULE).route_closing(
            Closing("d1", "flat"), decision(), START, worlds.snapshot(START, account)
        )
    ]
    assert titles == [f"[info] {end}: level 2 trim: p on account/main (paper)" for end in ("FLAT", *["AT TARGET"] * 2)]


def test_a_command_in_a_notice_has_the_store_of_the_run() -> None:
    """The part that writes the notice does not know the store; the message does, and a reader can copy the command."""
    notice = Notice(START, "operator", "portfolio", "warning", "page", "waits (`ksctl close --store STORE` ends that)")
    subject = MessageAttributes("notice", "page", "operator", "portfolio", None, (), ())
    body = notice_message(notice, subject, StartedAs("/srv/my store.sqlite")).body
    assert body.splitlines()[0] == "waits (`ksctl close --store '/srv/my store.sqlite'` ends that)"
    assert notice_message(notice, subject).body.splitlines()[0] == notice.text


def test_a_notice_about_a_close_says_what_the_account_holds_and_whom_to_call() -> None:
    """Short 2 BTC of 300 and long 1 ETH of 100: net short 200, gross 400. Other notices have neither."""
    held = [worlds.position("BTC", "short", contracts="2", notional="300")]
    held += [worlds.position("ETH", "long", contracts="1", notional="100")]
    snapshot = worlds.snapshot(START, worlds.account("800", held))
    routes = router(RULE)
    routes.runbooks = {"p": {"trim": RunbookFacts("trim", contacts=(Person("Ada", "desk", "+49 1"),))}}
    waits = Notice(START, "runner", "runner", "warning", "page", "BTC waits for the market", closing_on="main")

    def lines(notice: Notice, seen: Snapshot | None) -> list[str]:
        (found,) = routes.announce_notice(notice, seen)
        return decode_message(found.content).body.splitlines()[1:]

    when = "when: 2021-05-19T12:00:00Z (UTC); nothing here is newer"
    assert lines(waits, snapshot) == [
        when,
        "left: the scope holds 2 positions, net short 200.00, gross 400.00 USDT", "call: Ada (desk): +49 1",
        "next: ksctl status",
    ]  # fmt: skip
    unread = worlds.snapshot(START, replace(worlds.account("800"), positions=None))
    assert lines(waits, unread)[1] == "left: positions of the scope unknown"
    assert lines(replace(waits, closing_on=""), snapshot) == [when, "next: ksctl status"]


def test_a_notice_has_a_title_of_its_kind_and_its_text_once() -> None:
    """What kind of thing it is, and of which policy and scope; one without a title of its own has that of its kind."""
    (own,) = messages_of(router(RULE), "own")
    assert own.title == "[page] a warning of the runner"
    named = Notice(START, "runner", "runner", "warning", "page", "no answer since 12:00", title="account main is gone")
    long = Notice(START, "p", "account/main", "unexplained", "page", "word " * 40)
    first, message = [decode_message(each.body) for one in (named, long) for each in router(RULE).route_notice(one)]
    assert (first.title, first.body.splitlines()[0]) == ("[page] account main is gone", "no answer since 12:00")
    assert message.title == "[page] equity changed without an explanation: p on account/main"
    assert message.body.splitlines()[-1] == "next: ksctl status"


def test_the_page_of_a_strategy_names_its_account_and_says_that_it_has_no_equity() -> None:
    """The account has 1,000, which is not the strategy's: its page has the account, the venue and the currency."""
    carry = StrategyRule("carry", None, None, None, None, symbols=("BTC",))
    routes = NotificationRouter(PolicySet("sha256:0", None, (), (EVERYTHING,), strategies=(carry,)))
    book = BookChange(Book(Decimal(900), Decimal(900), None), Book(Decimal(0), Decimal(0), None))
    fired = decision(scope="strategy/carry", book=book, triggers=(), attribution=None)
    snapshot = worlds.snapshot(START, worlds.account("1000"))
    message = decode_message(next(iter(routes.route_decision(fired, snapshot, is_enforced=True))).body)
    assert message.title == "[page] level 2 trim: p on strategy/carry (main at paper, live)"
    assert first_lines(message)["loss"].endswith("equity unknown: strategy/carry has none of its own")
    assert first_lines(message)["left"] == (
        "net 0.00, gross 0.00 USDT once every order is filled; now net long 900.00, gross 900.00 USDT"
    )
    ended = routes.route_closing(Closing("d1", "flat", cost=Decimal(1)), fired, START, snapshot)
    end = decode_message(next(iter(ended)).body)
    assert end.title == "[info] AT TARGET: level 2 trim: p on strategy/carry (main at paper)"
    assert "equity" not in first_lines(end)


def test_the_page_of_a_label_has_the_equity_of_the_accounts_with_that_label() -> None:
    """Of two accounts one has the label: its 1,000 is the equity, and only its venue is in the title."""
    rule = ScopeRule("label", None, None, None, None, labels=(("main", "desk=alpha"),))
    graph = graphs.graph([], [], [], policy="p", scope=rule)
    routes = NotificationRouter(PolicySet("sha256:0", None, (graph,), (EVERYTHING,)))
    snapshot = worlds.snapshot(START, worlds.account("1000"), worlds.account("5", name="b"))
    fired = decision(scope="label/desk=alpha", triggers=())
    message = decode_message(next(iter(routes.route_decision(fired, snapshot, is_enforced=True))).body)
    assert first_lines(message)["loss"].endswith("equity 1,000.00 USDT now")


def test_a_page_says_which_stage_follows_and_who_resets() -> None:
    """Level 1 of two stages, of which it is reset by its condition; the highest one by a person, with the command."""
    triggers = [graphs.trigger("dip", 0, 0.05), graphs.trigger("fall", 0, 0.1)]
    stages = [graphs.stage("all", 2, 1), graphs.stage("trim", 1, 0, reset=AutoReset(2, HOUR))]
    graph = graphs.graph([graphs.FALL_15M], triggers, stages, policy="p")
    started = StartedAs("/var/ks.sqlite")
    first = tuple(outlook(decision(level=1), graph, started))
    assert first == ("it resets by itself once its condition has held for 1h",)
    ladder = ladder_of(graph)
    assert next_stage_text(1, ladder, {"fall": FALL}) == "level 2 all follows at fall >= 10% (how far is unknown)"
    assert next_stage_text(2, ladder, {"fall": FALL}) == "no stage is above this one"
    last = tuple(outlook(decision(level=2, stage="all"), graph, started))
    assert last == (
        "it stays latched until a person resets it, once the cause is known, which accepts the loss; a blank reason is "
        "refused: ksctl reset account/main --reason '' --store /var/ks.sqlite",
    )
    assert tuple(outlook(decision(kind="manual"), graph, started)) == (
        "the lock stays until a person lifts it, once the cause is known; a blank reason is refused: "
        "ksctl unlock account/main --reason '' --store /var/ks.sqlite",
    )
    timed = decision(kind="manual", lock=None)
    assert tuple(outlook(timed, graph, started)) == ()


def test_a_problem_and_its_all_clear_are_on_one_thread() -> None:
    """Its text, can be read again, answers the page that it cannot be read, and not one about another account."""
    notices = [
        Notice(START, "runner", "runner", "warning", "page", text, title=title)
        for text, title in (
            ("main cannot be read", "account main cannot be read"),
            ("main can be read again, after 3 min", "over: account main cannot be read"),
            ("b cannot be read", "account b cannot be read"),
        )
    ]
    began, over, other = (next(iter(router(RULE).route_notice(each))) for each in notices)
    threads = [decode_message(each.body).thread for each in (began, over, other)]
    assert threads[0] == threads[1] != threads[2]
    assert "" not in threads


def test_the_end_of_a_close_is_on_the_thread_of_its_firing() -> None:
    """Both have the incident's id; without it, the decision's."""
    routes = router(RULE)
    fired = next(iter(routes.route_decision(decision(), is_enforced=True, thread="i1")))
    ended = next(iter(routes.route_closing(Closing("d1", "flat"), decision(), START, thread="i1")))
    assert {decode_message(each.body).thread for each in (fired, ended)} == {"i1"}
    assert messages_of(routes, "fired")[0].thread == messages_of(routes, "closed")[0].thread == "d1"


def test_the_link_that_acknowledges_follows_the_next_command_above_what_a_short_text_loses(tmp_path: Path) -> None:
    """PagerDuty takes 1,024 characters; the link is one of the first lines, before the reasons and the orders."""
    root = NotificationRoot(
        "tree", "desk", (Receiver("desk", (RouteTarget("file", "/dev/null"),), HOUR),), graphs.HERE,
        pages_at="https://ks.example",
    )  # fmt: skip
    policies = replace(PolicySet("sha256:0", None, (), ()), notification=root)
    routes = NotificationRouter(policies, StartedAs(str(tmp_path / "ks.sqlite")))
    lines = decode_message(next(iter(routes.route_decision(decision(), is_enforced=True))).body).body.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("next "))
    key, address = lines[at + 1].split()
    assert (key, address.startswith("https://ks.example/ack/d1-")) == ("ack", True)
    assert lines[at + 1].index("https") == lines[at].index("ksctl")
    assert lines[at + 2] == ""


@pytest.mark.parametrize("most", range(300, 1100, 50))
def test_a_shortened_page_keeps_its_link_and_its_time(most: int) -> None:
    """However short the text of a service is, what it has room for begins with the time, and has the link."""
    lines = [
        "when    2024-01-01T00:00:00Z",
        *(f"line{n}   {'x' * 90}" for n in range(10)),
        "ack     https://ks/ack/d1-5",
    ]
    lines += ["", "Why", "  because"]
    message = replace(decision_message(decision(), SUBJECT, is_enforced=True), body="\n".join(lines))
    text = fit_message(message, most)
    assert len(text) <= most
    kept = text.splitlines()
    assert kept[0] == lines[0]
    assert kept.count("ack     https://ks/ack/d1-5") == 1
    (left,) = [int(line.split()[1]) for line in kept if line.startswith("…")]
    assert left + sum(line in lines for line in kept[:-3]) == len(lines)
