"""The record of an incident, built from hand-written stores; every number is worked out on paper."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from msgspec.structs import replace

from killswitch.incident.incident_builder import incident_of
from killswitch.incident.notify.message import Message, encode_message
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.document import ChecklistItem, EscalationContact, Incident, Person, RunbookFacts
from killswitch.incident.record.incident_decisions import (
    UnknownIncidentError,
    build_note,
    encode_note,
    find_incident,
    group_decisions,
    keep_runbooks,
)
from killswitch.incident.record.verdict import verdict
from killswitch.incident.report.rendering import report_markdown
from killswitch.model.decision import Decision
from killswitch.model.instant import to_micros
from killswitch.model.store import JournalEntry, Outgoing
from tests import incidents
from tests.incidents import FIRST, POLICY, RESET, SCOPE, SECOND, SET, FilledStore, entry
from tests.worlds import START, after


def incident_in(written: FilledStore, prefix: str | None = None) -> Incident:
    return incident_of(written.store, find_incident(written.store, prefix), StartedAs("store.sqlite", ("policies",)))


def test_an_incident_lasts_from_the_first_firing_to_the_reset(written: FilledStore) -> None:
    """Its id is that of the first decision, its level the highest, and the reset ends it."""
    incidents.whole_incident(written)
    incident = incident_in(written)
    assert (incident.id, incident.policy, incident.scope, incident.mode) == (FIRST, POLICY, SCOPE, "enforce")
    assert (incident.opened_at, incident.closed_at, incident.lasted) == (after(), after(minutes=11), "11m")
    assert (incident.state, incident.level, incident.stage) == ("closed", 3, "close-everything")
    assert [(each.decision, each.level) for each in incident.firings] == [(FIRST, 1), (SECOND, 3)]
    assert incident.reset is not None
    assert (incident.reset.decision, incident.reset.author, incident.reset.reason) == (RESET, "ada", "it is over")


def test_the_policy_line_and_the_trigger_values_are_quoted(written: FilledStore) -> None:
    """The trigger, its value and its threshold as written, and the lines of stage and trigger."""
    incidents.whole_incident(written)
    first = incident_in(written).firings[0]
    assert first.line is not None
    assert (first.line.file, first.line.line, first.line.text) == ("policies/p.yaml", 10, "- name: trim")
    (trigger,) = first.triggers
    assert (trigger.signal, trigger.value, trigger.threshold) == ("equity.drawdown", "5.10%", ">= 4.5%")
    assert trigger.line is not None
    assert trigger.line.line == 7
    assert (first.equity, first.currency) == (Decimal(1000), "USDT")


def test_every_order_has_its_outcome_and_its_slippage_against_the_mark_at_sending(written: FilledStore) -> None:
    """5 sold at 99 against a mark of 100 cost 5, and so do 5 bought at 51 against 50."""
    incidents.whole_incident(written)
    incident = incident_in(written)
    orders = [
        (each.number, each.symbol, each.side, each.filled, each.price, each.slippage, each.fee, each.outcome)
        for each in incident.orders
    ]
    assert orders == [
        (1, "BTC", "sell", Decimal(5), Decimal(99), Decimal(5), Decimal(1), "filled"),
        (2, "BTC", "sell", Decimal(5), Decimal(99), Decimal(5), Decimal(1), "filled"),
        (3, "ETH", "buy", Decimal(5), Decimal(51), Decimal(5), Decimal(1), "filled"),
    ]


def test_the_totals_of_a_close_are_realised_pnl_fees_and_slippage(written: FilledStore) -> None:
    """(99 − 110) × 10 on the long, (60 − 51) × 5 on the short; three fees of 1, three times 5 of slippage."""
    incidents.whole_incident(written)
    incident = incident_in(written).money
    assert (incident.realised, incident.fees, incident.slippage, incident.cost, incident.currency) == (
        Decimal(-65), Decimal(3), Decimal(15), Decimal(18), "USDT",
    )  # fmt: skip


def test_each_close_of_an_incident_has_its_own_duration(written: FilledStore) -> None:
    """The first from second 1 to 3, the second from 61 to 69; the minute between them belongs to neither."""
    incidents.whole_incident(written)
    incident = incident_in(written)
    assert [firing.took for firing in incident.firings] == [2.0, 8.0]
    assert incident.totals.took is None
    text = report_markdown(incident)
    ends = "s, from its first order to its last snapshot of the venue |"
    assert f"| time of the close, trim at 00:00:00 | 2.0 {ends}" in text
    assert f"| time of the close, close-everything at 00:01:00 | 8.0 {ends}" in text
    assert "| 69.0 s" not in text  # no common time; a drawing has it for one position
    assert "68.0 s" not in text


def test_absent_values_are_unknown_and_never_zero(written: FilledStore) -> None:
    """A fill without a fee and without a mark: fees, slippage, cost and realised P&L are unknown."""
    decision = incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "5", "0"))
    written.tick(after(), [decision], [entry(FIRST, "planned", after(), contracts="5", target="0")])
    written.store.append(entry(FIRST, "sending", after(seconds=1), side="sell", amount="5", position="5"))
    written.store.append(entry(FIRST, "filled", after(seconds=2), state="filled", filled="5", price="99"))
    incident = incident_in(written)
    assert (incident.money.realised, incident.money.fees, incident.money.slippage, incident.money.cost) == (None,) * 4
    assert (incident.left[0].contracts, incident.left[0].to_close) == (None, None)
    states = {item.key: item.state for item in incident.checklist}
    assert (states["closed"], states["reconciled"], states["counted"], states["audited"]) == ("open",) * 4
    assert incident.firings[0].equity is None


def test_the_timeline_lists_everything_in_order_of_time(written: FilledStore) -> None:
    """Triggers, firings, orders, answers, verifications, ends, notices and the reset, oldest first."""
    incidents.whole_incident(written)
    moments = [(moment.at - START, moment.kind, moment.text) for moment in incident_in(written).timeline]
    assert [(int(at.total_seconds()), kind) for at, kind, _ in moments] == [
        (0, "trigger"), (0, "fired"), (1, "sent"), (2, "answered"), (3, "verified"), (3, "finished"),
        (60, "trigger"), (60, "fired"), (60, "notice"), (61, "sent"), (62, "sent"), (63, "answered"),
        (66, "answered"), (68, "answered"), (69, "verified"), (69, "verified"), (69, "finished"), (660, "reset"),
    ]  # fmt: skip
    texts = [text for _, _, text in moments]
    assert "level 3 close-everything fired (fall confirmed)" in texts
    assert "order sent: sell 5 BTC long on main" in texts
    assert "the order on BTC long on main has an unknown status: no answer within 5 s" in texts
    assert "warning: the book is thin" in texts
    assert texts[-1] == "reset by ada: it is over"


def test_checklist_items_proved_by_the_record_are_ticked_and_the_others_open(written: FilledStore) -> None:
    """Closed, reconciled and counted have their proofs; cause, recovery and debrief are open."""
    incidents.whole_incident(written)
    checklist_items = {item.key: (item.state, item.proof) for item in incident_in(written).checklist}
    assert checklist_items["closed"] == (
        "proved", "the venue shows 2 of 2 positions closed, last at 2024-01-01T00:01:09Z",
    )  # fmt: skip
    assert checklist_items["reconciled"][0] == "proved"
    assert checklist_items["counted"] == (
        "proved", "realised -65.00 USDT before fees, fees 3.00 USDT, slippage 15.00 USDT, delay cost 0.00 USDT",
    )  # fmt: skip
    assert checklist_items["notified"][0] == "open"
    assert {key: checklist_items[key][0] for key in ("cause", "recovery", "debrief")} == dict.fromkeys(
        ("cause", "recovery", "debrief"), "open"
    )


def test_a_position_that_is_not_at_target_is_still_open(written: FilledStore) -> None:
    """The venue shows 2 of a target of 0: 2 are left to close, and nothing is ticked."""
    decision = incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "5", "0"))
    written.tick(after(), [decision], [entry(FIRST, "planned", after(), contracts="5", target="0")],
                 snapshot=incidents.snapshot(after()))  # fmt: skip
    written.store.append(entry(FIRST, "verified", after(seconds=2), position="2", target="0"))
    written.store.append(entry(FIRST, "finished", after(seconds=3), None, status="residual", reason="halted"))
    incident = incident_in(written)
    ((left,), settled) = incident.left, incident.settled
    assert (left.symbol, left.contracts, left.target, left.to_close) == ("BTC", Decimal(2), Decimal(0), Decimal(2))
    assert settled == ()
    assert {item.key: item.proof for item in incident.checklist}["closed"].startswith("1 position not at target")
    assert any("close --dry-run" in command.line for command in incident.commands)


def test_the_smallest_target_and_the_newest_verification_of_a_position_count(written: FilledStore) -> None:
    """Level 1 has target 5 and verifies 5, level 3 has target 0 and verifies 0: one position, at its target 0."""
    incidents.whole_incident(written)
    incident = incident_in(written)
    assert [(each.symbol, each.target, each.contracts) for each in incident.settled] == [
        ("BTC", Decimal(0), Decimal(0)), ("ETH", Decimal(0), Decimal(0)),
    ]  # fmt: skip
    assert incident.left == ()


def test_an_order_of_unknown_status_leaves_the_reconciliation_open(written: FilledStore) -> None:
    """Whatever the positions show, an order without an answer is not reconciled."""
    decision = incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "5", "0"))
    written.tick(after(), [decision], [entry(FIRST, "planned", after(), contracts="5", target="0")])
    written.store.append(entry(FIRST, "sending", after(seconds=1), side="sell", amount="5", position="5"))
    written.store.append(entry(FIRST, "unknown", after(seconds=6), text="no answer"))
    written.store.append(entry(FIRST, "verified", after(seconds=9), position="0", target="0"))
    incident = {item.key: item for item in incident_in(written).checklist}["reconciled"]
    assert (incident.state, incident.proof) == ("open", "1 order of unknown status")


def test_the_checklist_item_of_notifications_follows_the_outbox(written: FilledStore) -> None:
    """One message delivered and one waiting: open, with the reason; both delivered: proved."""
    decision = incidents.firing(FIRST, after(), "trim", 1, 0)
    messages = [
        Outgoing(f"m{number}", to_micros(after()), "desk", target, encode_message(
            Message(f"m{number}", after(), "fired", "page", POLICY, SCOPE, "it fired", "", decision=FIRST)))
        for number, target in enumerate(("log", "file:/tmp/x"))
    ]  # fmt: skip
    written.tick(after(), [decision], messages=messages)
    written.store.claim("log", 9)
    written.store.settle("m0", to_micros(after(seconds=1)), None)
    written.store.claim("file:/tmp/x", 9)
    written.store.settle("m1", to_micros(after(seconds=1)), "disk full")
    incident = incident_in(written)
    item = {each.key: each for each in incident.checklist}["notified"]
    assert (item.state, item.proof) == ("open", "1 pending of 2 to log, file:/tmp/x: disk full")
    assert "notified log: it fired" in [moment.text for moment in incident.timeline]
    written.store.settle("m1", to_micros(after(seconds=2)), None)
    item = {each.key: each for each in incident_in(written).checklist}["notified"]
    assert (item.state, item.proof) == (
        "proved", "2 messages delivered to log, file:/tmp/x, last at 2024-01-01T00:00:02Z",
    )  # fmt: skip


def test_contacts_come_from_the_policy_set_at_the_time_of_the_firing(written: FilledStore) -> None:
    """They are kept with the incident's first decision: contacts added to the files later are not in it."""
    desk, later = Person("desk", "risk desk", "+49 30 901820"), Person("later", "nobody yet", "none")
    facts = RunbookFacts(
        "trim", contacts=(desk,), escalation=(EscalationContact("15m", "desk", "risk desk", "+49 30 901820"),)
    )
    keep_runbooks(written.store, SET, {POLICY: {"close-everything": facts}})
    incidents.whole_incident(written)
    assert incident_in(written).contacts == (desk,)
    opening = find_incident(written.store, None).decisions[0]
    written.store.keep_incident(FIRST, encode_note(build_note(written.store, opening)), [])
    keep_runbooks(written.store, SET, {POLICY: {"close-everything": RunbookFacts("trim", contacts=(later,))}})
    incident = incident_in(written)
    assert incident.contacts == (desk,)
    assert incident.escalation[0].after == "15m"


@pytest.mark.parametrize(("given_up", "state"), [(("main", "other"), "closed"), (("main",), "open")])
def test_a_manual_close_that_was_given_up_is_over(written: FilledStore, given_up: tuple[str, ...], state: str) -> None:
    """5 BTC are left on each of two accounts; the incident is over once each of these closes was given up."""
    close, accounts = "dd" * 10, ("main", "other")
    intents = tuple(replace(incidents.intent("BTC", "sell", "5", "0"), account=each) for each in accounts)
    by_hand = Decision(
        close, after(minutes=2), "operator", SET, SCOPE, "enforce", None, 0, 0, kind="manual", intents=intents
    )

    def write(kind: str, minutes: float, account: str, **data: str) -> JournalEntry:
        return replace(entry(close, kind, after(minutes=minutes), **data), account=account)

    written.tick(
        after(minutes=2), [by_hand], [write("planned", 2, each, target="0", contracts="5") for each in accounts]
    )
    for each in accounts:
        if each in given_up:
            written.store.append(write("given_up", 3, each, author="mia", reason="sold"))
        written.store.append(write("verified", 4, each, position="5", target="0"))
        ended = entry(close, "finished", after(minutes=4), None, status="residual", reason="given up by mia: sold")
        written.store.append(replace(ended, account=each))
    incident = incident_in(written)
    assert incident.state == state
    assert incident.closed_at == (after(minutes=4) if state == "closed" else None)


def test_a_manual_close_is_its_own_incident(written: FilledStore) -> None:
    """It names author and reason, has no level, and ends with its close."""
    by_hand = Decision(
        "dd" * 10, after(minutes=2), "operator", SET, SCOPE, "enforce", None, 0, 0, kind="manual",
        author="ada", reason="drill", intents=(incidents.intent("BTC", "sell", "5", "0"),),
    )  # fmt: skip
    desk = Person("desk", "risk desk", "+49 30 901820")
    keep_runbooks(written.store, SET, {POLICY: {"trim": RunbookFacts("trim", contacts=(desk,))}})
    written.tick(after(), [incidents.firing(FIRST, after(), "trim", 1, 0)])
    written.tick(
        after(minutes=2), [by_hand], [entry("dd" * 10, "planned", after(minutes=2), target="0", contracts="5")]
    )
    assert [life.id for life in group_decisions([d.decision for d in reversed(written.store.decisions(9))])] == [
        FIRST,
        "dd" * 10,
    ]
    incident = incident_in(written)
    assert (incident.id, incident.by_hand, incident.level, incident.state) == ("dd" * 10, True, 0, "open")
    written.store.append(entry("dd" * 10, "verified", after(minutes=3), position="0", target="0"))
    written.store.append(entry("dd" * 10, "finished", after(minutes=3), None, status="flat"))
    incident = incident_in(written)
    assert (incident.state, incident.closed_at) == ("closed", after(minutes=3))
    assert incident.timeline[0].text == "close by hand by ada: drill"
    assert incident.contacts == (desk,), "whom the policy set names, though none of its policies fired"


def test_a_firing_after_a_reset_is_another_incident(written: FilledStore) -> None:
    """An incident ends with its reset; the ids of its later decisions find it too."""
    incidents.whole_incident(written)
    written.tick(after(hours=1), [incidents.firing("ee" * 10, after(hours=1), "trim", 1, 0)])
    assert incident_in(written).id == "ee" * 10
    assert incident_in(written, SECOND[:6]).id == FIRST
    assert incident_in(written, RESET[:6]).id == FIRST


def test_an_unknown_or_ambiguous_incident_is_refused_with_the_candidates(written: FilledStore) -> None:
    """The message names the candidates; an empty store says that nothing has fired."""
    with pytest.raises(UnknownIncidentError, match="no incident is recorded"):
        incident_in(written)
    written.tick(after(), [incidents.firing("a1" * 10, after(), "trim", 1, 0)])
    written.tick(after(hours=1), [incidents.reset(after(hours=1))])
    written.tick(after(hours=2), [incidents.firing("a2" * 10, after(hours=2), "trim", 1, 0)])
    with pytest.raises(UnknownIncidentError, match=r"several incidents start with a: (a2){10} .*, (a1){10}"):
        incident_in(written, "a")
    with pytest.raises(UnknownIncidentError, match=r"no incident starts with zz; the newest are (a2){10}"):
        incident_in(written, "zz")


def test_the_record_survives_json(written: FilledStore) -> None:
    """What `--output json` prints decodes into the same record."""
    incidents.whole_incident(written)
    incident = incident_in(written)
    encoded = msgspec.json.Encoder(decimal_format="string").encode(incident)
    assert msgspec.json.decode(encoded, type=Incident) == incident


def checklist_items(incident: Incident) -> dict[str, ChecklistItem]:
    """The checklist by its keys."""
    return {item.key: item for item in incident.checklist}


def partial_close(written: FilledStore, *journal: JournalEntry) -> None:
    """Level 1 is performed: 5 of 10 BTC are to be sold, and `journal` is the outcome."""
    first = incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "5", "5"))
    planned = entry(FIRST, "planned", after(), contracts="5", target="5", mark="100", value="100")
    written.tick(after(), [first], [planned], snapshot=incidents.snapshot(after()))
    for each in journal:
        written.store.append(each)


def test_a_decision_that_was_recorded_only_leaves_the_incident_not_closed(written: FilledStore) -> None:
    """Level 1 reaches its target; then a run without --live records level 3 and sends nothing."""
    partial_close(
        written,
        entry(FIRST, "sending", after(seconds=1), side="sell", amount="5", position="10"),
        entry(FIRST, "filled", after(seconds=2), state="filled", filled="5", price="99", fee="1"),
        entry(FIRST, "verified", after(seconds=3), position="5", target="5"),
        entry(FIRST, "finished", after(seconds=3), None, status="flat", cost="6"),
    )
    assert checklist_items(incident_in(written))["closed"].state == "proved"
    everything = incidents.intent("BTC", "sell", "5", "0")
    second = incidents.firing(SECOND, after(minutes=1), "close-everything", 3, 1, everything)
    written.tick(after(minutes=1), [second], snapshot=incidents.snapshot(after(minutes=1)))
    incident = incident_in(written)
    assert checklist_items(incident)["closed"] == ChecklistItem(
        "closed", "Positions confirmed closed", "open",
        "close-everything was recorded only: nothing was sent, see what is still open",
    )  # fmt: skip
    text = report_markdown(incident)
    assert "Nothing that was to be reduced: the venue shows 1 position at target and open (5 BTC long)." in text
    assert (
        "**Not closed:** the 1 order of close-everything at 00:01:00 was recorded only, and nothing was sent." in text
    )


def test_a_stage_whose_close_selected_nothing_lists_what_is_held(written: FilledStore) -> None:
    """Its `where` held the close back: two positions stay, and nothing says that there was nothing to close."""
    locked = incidents.firing(FIRST, after(), "trim", 1, 0)
    plan = JournalEntry(
        FIRST, "planned", after(), None, None, None, None, None, {"mode": "reduce_only", "scope": SCOPE}
    )
    written.tick(after(), [locked], [plan], snapshot=incidents.snapshot(after()))
    incident = incident_in(written)
    assert verdict(incident).startswith("NOTHING CLOSED: 2 positions held, ")
    text = report_markdown(incident)
    assert "No position was to be reduced.\n\nHeld, and no decision was to reduce it:" in text
    assert [line.split(" |")[0] for line in text.splitlines() if "| main |" in line] == ["| BTC long", "| ETH short"]
    assert (
        checklist_items(incident)["closed"].proof
        == "no position was to be reduced: 2 positions held: check the book yourself"
    )


def test_a_holding_that_is_sold_on_another_market_is_not_listed_as_held(written: FilledStore) -> None:
    """BTC leaves through BTC/EUR: only ETH was not to be reduced."""
    hop = replace(incidents.intent("BTC/EUR", "sell", "10", "0"), purpose="hop")
    written.tick(after(), [incidents.firing(FIRST, after(), "trim", 1, 0, hop)], snapshot=incidents.snapshot(after()))
    assert [each.symbol for each in incident_in(written).held] == ["ETH"]


def test_what_a_fight_against_a_bot_came_to_is_one_line(written: FilledStore) -> None:
    """One answer sold the 5 BTC that a bot had bought, at 99 instead of 100: 5 of slippage and a fee of 1."""
    partial_close(written)
    reason = "lock breached: others opened 5 BTC long on main"
    bought = incidents.intent("BTC", "sell", "5", "5")
    answer = incidents.firing(SECOND, after(minutes=1), "trim", 1, 1, bought, kind="breach", reason=reason)
    plan = entry(SECOND, "planned", after(minutes=1), contracts="5", target="5", mark="100", value="100")
    written.tick(after(minutes=1), [answer], [plan], snapshot=incidents.snapshot(after(minutes=1)))
    for each in (
        entry(SECOND, "sending", after(seconds=61), side="sell", amount="5", position="10", mark="100", value="100"),
        entry(SECOND, "filled", after(seconds=62), state="filled", filled="5", price="99", fee="1"),
        entry(SECOND, "verified", after(seconds=63), position="5", target="5"),
        entry(SECOND, "finished", after(seconds=63), None, status="flat", cost="6"),
    ):
        written.store.append(each)
    text = report_markdown(incident_in(written))
    assert "| answers to the lock breach | 1 answer, 1 order, closed 5 BTC long, cost 6.00 USDT |" in text


def test_with_an_order_of_unknown_status_positions_and_sums_are_not_proved(written: FilledStore) -> None:
    """The venue showed the target once; the unknown order may still fill and have costs."""
    partial_close(
        written,
        entry(FIRST, "sending", after(seconds=1), side="sell", amount="5", position="10"),
        entry(FIRST, "unknown", after(seconds=2), text="no answer within 5 s"),
        entry(FIRST, "verified", after(seconds=3), position="5", target="5"),
        entry(FIRST, "finished", after(seconds=3), None, status="abandoned", reason="superseded"),
    )
    incident = checklist_items(incident_in(written))
    assert (incident["closed"].state, incident["closed"].proof) == (
        "open",
        "1 order of unknown status may still be filled",
    )
    assert (incident["counted"].state, incident["counted"].proof) == (
        "open", "what 1 order of unknown status realised and cost is unknown",
    )  # fmt: skip


def test_totals_are_unknown_while_an_order_is_unknown(written: FilledStore) -> None:
    """One fill is known and one order is not: the close has no totals."""
    partial_close(
        written,
        entry(FIRST, "sending", after(seconds=1), side="sell", amount="3", position="10"),
        entry(FIRST, "filled", after(seconds=2), state="filled", filled="3", price="99", fee="1"),
    )
    assert incident_in(written).money.fees == 1
    written.store.append(entry(FIRST, "sending", after(seconds=4), "ETH", side="buy", amount="2", position="7"))
    money = incident_in(written).money
    assert (money.realised, money.fees, money.slippage, money.cost) == (None, None, None, None)
