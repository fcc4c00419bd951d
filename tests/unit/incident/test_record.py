"""The record of an incident, read from stores written by hand; every number worked out on paper."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

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
from killswitch.incident.report.rendering import report_markdown
from killswitch.model.decision import Decision
from killswitch.model.instant import to_micros
from killswitch.model.store import JournalEntry, Outgoing
from tests import incidents
from tests.incidents import FIRST, POLICY, RESET, SCOPE, SECOND, SET, HandWritten, entry, hand_written
from tests.worlds import START, after


@pytest.fixture
def written(tmp_path: Path) -> Iterator[HandWritten]:
    made = hand_written(tmp_path)
    yield made
    made.store.close()


def read(written: HandWritten, prefix: str | None = None) -> Incident:
    return incident_of(written.store, find_incident(written.store, prefix), StartedAs("store.sqlite", ("policies",)))


def test_an_incident_lives_from_the_first_firing_to_the_reset(written: HandWritten) -> None:
    """Its id is that of the first decision, its level the highest, and the reset ends it."""
    incidents.whole_incident(written)
    found = read(written)
    assert (found.id, found.policy, found.scope, found.mode) == (FIRST, POLICY, SCOPE, "enforce")
    assert (found.opened_at, found.closed_at, found.lasted) == (after(), after(minutes=11), "11m")
    assert (found.state, found.level, found.stage) == ("closed", 3, "close-everything")
    assert [(each.decision, each.level) for each in found.firings] == [(FIRST, 1), (SECOND, 3)]
    assert found.reset is not None
    assert (found.reset.decision, found.reset.author, found.reset.reason) == (RESET, "ada", "it is over")


def test_the_policys_line_and_the_readings_are_quoted(written: HandWritten) -> None:
    """What fired, the value beside the threshold as written, and the lines of stage and trigger."""
    incidents.whole_incident(written)
    first = read(written).firings[0]
    assert first.line is not None
    assert (first.line.file, first.line.line, first.line.text) == ("policies/p.yaml", 10, "- name: trim")
    (trigger,) = first.triggers
    assert (trigger.signal, trigger.value, trigger.threshold) == ("equity.drawdown", "5.10%", ">= 4.5%")
    assert trigger.line is not None
    assert trigger.line.line == 7
    assert (first.equity, first.currency) == (Decimal(1000), "USDT")


def test_every_order_has_its_outcome_and_its_slippage_against_the_mark_when_it_was_sent(written: HandWritten) -> None:
    """5 sold at 99 against a mark of 100 cost 5, and so do 5 bought at 51 against 50."""
    incidents.whole_incident(written)
    found = read(written)
    told = [
        (each.number, each.symbol, each.side, each.filled, each.price, each.slippage, each.fee, each.outcome)
        for each in found.orders
    ]
    assert told == [
        (1, "BTC", "sell", Decimal(5), Decimal(99), Decimal(5), Decimal(1), "filled"),
        (2, "BTC", "sell", Decimal(5), Decimal(99), Decimal(5), Decimal(1), "filled"),
        (3, "ETH", "buy", Decimal(5), Decimal(51), Decimal(5), Decimal(1), "filled"),
    ]


def test_the_close_comes_to_realised_fees_and_slippage(written: HandWritten) -> None:
    """(99 − 110) × 10 on the long, (60 − 51) × 5 on the short; three fees of 1, three times 5 of slippage."""
    incidents.whole_incident(written)
    found = read(written).money
    assert (found.realised, found.fees, found.slippage, found.cost, found.currency) == (
        Decimal(-65), Decimal(3), Decimal(15), Decimal(18), "USDT",
    )  # fmt: skip


def test_each_close_of_an_incident_has_its_own_time(written: HandWritten) -> None:
    """The first from second 1 to 3, the second from 61 to 69; the minute between them belongs to neither."""
    incidents.whole_incident(written)
    found = read(written)
    assert [firing.took for firing in found.firings] == [2.0, 8.0]
    assert found.totals.took is None
    text = report_markdown(found)
    ends = "s, from its first order to its last snapshot of the venue |"
    assert f"| time of the close, trim at 00:00:00 | 2.0 {ends}" in text
    assert f"| time of the close, close-everything at 00:01:00 | 8.0 {ends}" in text
    assert "69.0 s" not in text
    assert "68.0 s" not in text


def test_what_is_not_known_is_unknown_and_never_zero(written: HandWritten) -> None:
    """A fill without a fee and without a mark: fees, slippage, cost and what was realised are unknown."""
    decision = incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "5", "0"))
    written.tick(after(), [decision], [entry(FIRST, "planned", after(), contracts="5", target="0")])
    written.store.append(entry(FIRST, "sending", after(seconds=1), side="sell", amount="5", position="5"))
    written.store.append(entry(FIRST, "filled", after(seconds=2), state="filled", filled="5", price="99"))
    found = read(written)
    assert (found.money.realised, found.money.fees, found.money.slippage, found.money.cost) == (None,) * 4
    assert (found.left[0].contracts, found.left[0].to_close) == (None, None)
    states = {item.key: item.state for item in found.checklist}
    assert (states["closed"], states["reconciled"], states["counted"], states["audited"]) == ("open",) * 4
    assert found.firings[0].equity is None


def test_the_timeline_tells_all_in_one_order(written: HandWritten) -> None:
    """Triggers, firings, orders, answers, verifications, ends, notices and the reset, oldest first."""
    incidents.whole_incident(written)
    told = [(moment.at - START, moment.kind, moment.text) for moment in read(written).timeline]
    assert [(int(at.total_seconds()), kind) for at, kind, _ in told] == [
        (0, "trigger"), (0, "fired"), (1, "sent"), (2, "answered"), (3, "verified"), (3, "finished"),
        (60, "trigger"), (60, "fired"), (60, "notice"), (61, "sent"), (62, "sent"), (63, "answered"),
        (66, "answered"), (68, "answered"), (69, "verified"), (69, "verified"), (69, "finished"), (660, "reset"),
    ]  # fmt: skip
    texts = [text for _, _, text in told]
    assert "level 3 close-everything fired (fall confirmed)" in texts
    assert "order sent: sell 5 BTC long on main" in texts
    assert "the order on BTC long on main has an unknown status: no answer within 5 s" in texts
    assert "warning: the book is thin" in texts
    assert texts[-1] == "reset by ada: it is over"


def test_what_the_record_proves_is_ticked_and_the_rest_left_to_a_person(written: HandWritten) -> None:
    """Closed, reconciled and counted with their proofs; cause, recovery and debrief open."""
    incidents.whole_incident(written)
    items = {item.key: (item.state, item.proof) for item in read(written).checklist}
    assert items["closed"] == (
        "proved", "the venue shows 2 positions at target, last at 2024-01-01T00:01:09Z",
    )  # fmt: skip
    assert items["reconciled"][0] == "proved"
    assert items["counted"] == (
        "proved", "realised -65.00 USDT before fees, fees 3.00 USDT, slippage 15.00 USDT, delay cost 0.00 USDT",
    )  # fmt: skip
    assert items["notified"][0] == "open"
    assert {key: items[key][0] for key in ("cause", "recovery", "debrief")} == dict.fromkeys(
        ("cause", "recovery", "debrief"), "open"
    )


def test_a_position_that_is_not_at_target_is_still_open(written: HandWritten) -> None:
    """The venue shows 2 of a target of 0: 2 are left to close, and nothing is ticked."""
    decision = incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "5", "0"))
    written.tick(after(), [decision], [entry(FIRST, "planned", after(), contracts="5", target="0")],
                 snapshot=incidents.snapshot(after()))  # fmt: skip
    written.store.append(entry(FIRST, "verified", after(seconds=2), position="2", target="0"))
    written.store.append(entry(FIRST, "finished", after(seconds=3), None, status="residual", reason="halted"))
    found = read(written)
    ((left,), settled) = found.left, found.settled
    assert (left.symbol, left.contracts, left.target, left.to_close) == ("BTC", Decimal(2), Decimal(0), Decimal(2))
    assert settled == ()
    assert {item.key: item.proof for item in found.checklist}["closed"].startswith("1 position not at target")
    assert any("close --dry-run" in command.line for command in found.commands)


def test_the_smallest_target_and_the_newest_sight_of_a_position_count(written: HandWritten) -> None:
    """Level 1 wanted 5 left and saw 5, level 3 wants 0 and saw 0: one position, settled at 0."""
    incidents.whole_incident(written)
    found = read(written)
    assert [(each.symbol, each.target, each.contracts) for each in found.settled] == [
        ("BTC", Decimal(0), Decimal(0)), ("ETH", Decimal(0), Decimal(0)),
    ]  # fmt: skip
    assert found.left == ()


def test_an_order_of_unknown_fate_leaves_the_reconciliation_open(written: HandWritten) -> None:
    """Whatever the positions show, an order that nobody answered for is not reconciled."""
    decision = incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "5", "0"))
    written.tick(after(), [decision], [entry(FIRST, "planned", after(), contracts="5", target="0")])
    written.store.append(entry(FIRST, "sending", after(seconds=1), side="sell", amount="5", position="5"))
    written.store.append(entry(FIRST, "unknown", after(seconds=6), text="no answer"))
    written.store.append(entry(FIRST, "verified", after(seconds=9), position="0", target="0"))
    found = {item.key: item for item in read(written).checklist}["reconciled"]
    assert (found.state, found.proof) == ("open", "1 order of unknown status")


def test_who_was_told_is_read_from_the_outbox(written: HandWritten) -> None:
    """One message delivered and one waiting: open, with what is wrong; both delivered: proved."""
    decision = incidents.firing(FIRST, after(), "trim", 1, 0)
    messages = [
        Outgoing(f"m{number}", to_micros(after()), "desk", target, encode_message(
            Message(f"m{number}", after(), "fired", "page", POLICY, SCOPE, "it fired", "", decision=FIRST)))
        for number, target in enumerate(("log", "file:/tmp/x"))
    ]  # fmt: skip
    written.tick(after(), [decision], messages=messages)
    written.store.claim("log")
    written.store.settle("m0", to_micros(after(seconds=1)), None)
    written.store.claim("file:/tmp/x")
    written.store.settle("m1", to_micros(after(seconds=1)), "disk full")
    found = read(written)
    item = {each.key: each for each in found.checklist}["notified"]
    assert (item.state, item.proof) == ("open", "1 pending of 2 to log, file:/tmp/x: disk full")
    assert "notified log: it fired" in [moment.text for moment in found.timeline]
    written.store.settle("m1", to_micros(after(seconds=2)), None)
    item = {each.key: each for each in read(written).checklist}["notified"]
    assert (item.state, item.proof) == (
        "proved", "2 messages delivered to log, file:/tmp/x, last at 2024-01-01T00:00:02Z",
    )  # fmt: skip


def test_contacts_come_from_the_policy_set_as_it_was_when_the_stage_fired(written: HandWritten) -> None:
    """Kept with the incident under its first decision: whoever is named in the files later is not in it."""
    desk, later = Person("desk", "risk desk", "+49 30 901820"), Person("later", "nobody yet", "none")
    facts = RunbookFacts(
        "trim", contacts=(desk,), escalation=(EscalationContact("15m", "desk", "risk desk", "+49 30 901820"),)
    )
    keep_runbooks(written.store, SET, {POLICY: {"close-everything": facts}})
    incidents.whole_incident(written)
    assert read(written).contacts == (desk,)
    opening = find_incident(written.store, None).decisions[0]
    written.store.keep_incident(FIRST, encode_note(build_note(written.store, opening)), [])
    keep_runbooks(written.store, SET, {POLICY: {"close-everything": RunbookFacts("trim", contacts=(later,))}})
    found = read(written)
    assert found.contacts == (desk,)
    assert found.escalation[0].after == "15m"


def test_a_close_by_hand_is_an_incident_of_its_own(written: HandWritten) -> None:
    """It names author and reason, has no level, and ends with its closing."""
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
    found = read(written)
    assert (found.id, found.by_hand, found.level, found.state) == ("dd" * 10, True, 0, "open")
    written.store.append(entry("dd" * 10, "verified", after(minutes=3), position="0", target="0"))
    written.store.append(entry("dd" * 10, "finished", after(minutes=3), None, status="flat"))
    found = read(written)
    assert (found.state, found.closed_at) == ("closed", after(minutes=3))
    assert found.timeline[0].text == "close by hand by ada: drill"
    assert found.contacts == (desk,), "whom the policy set names, though none of its policies fired"


def test_a_firing_after_a_reset_is_another_incident(written: HandWritten) -> None:
    """One life ends with its reset; the ids of later decisions find the incident that they belong to."""
    incidents.whole_incident(written)
    written.tick(after(hours=1), [incidents.firing("ee" * 10, after(hours=1), "trim", 1, 0)])
    assert read(written).id == "ee" * 10
    assert read(written, SECOND[:6]).id == FIRST
    assert read(written, RESET[:6]).id == FIRST


def test_an_unknown_or_ambiguous_incident_is_refused_with_those_there_are(written: HandWritten) -> None:
    """The message names the candidates; an empty store says that nothing has fired."""
    with pytest.raises(UnknownIncidentError, match="no incident is recorded"):
        read(written)
    written.tick(after(), [incidents.firing("a1" * 10, after(), "trim", 1, 0)])
    written.tick(after(hours=1), [incidents.reset(after(hours=1))])
    written.tick(after(hours=2), [incidents.firing("a2" * 10, after(hours=2), "trim", 1, 0)])
    with pytest.raises(UnknownIncidentError, match=r"several incidents start with a: (a2){10} .*, (a1){10}"):
        read(written, "a")
    with pytest.raises(UnknownIncidentError, match=r"no incident starts with zz; the newest are (a2){10}"):
        read(written, "zz")


def test_the_record_survives_json(written: HandWritten) -> None:
    """What `--output json` prints decodes into the same record."""
    incidents.whole_incident(written)
    found = read(written)
    encoded = msgspec.json.Encoder(decimal_format="string").encode(found)
    assert msgspec.json.decode(encoded, type=Incident) == found


def items(incident: Incident) -> dict[str, ChecklistItem]:
    """The checklist by its keys."""
    return {item.key: item for item in incident.checklist}


def cut_in_half(written: HandWritten, *journal: JournalEntry) -> None:
    """Level 1 is acted on: 5 of 10 BTC are to be sold, and `journal` is what came of it."""
    first = incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "5", "5"))
    planned = entry(FIRST, "planned", after(), contracts="5", target="5", mark="100", value="100")
    written.tick(after(), [first], [planned], snapshot=incidents.snapshot(after()))
    for each in journal:
        written.store.append(each)


def test_what_was_recorded_only_is_not_closed_however_well_the_rest_went(written: HandWritten) -> None:
    """Level 1 reached its target; then the run was started without --live, and level 3 sent nothing."""
    cut_in_half(
        written,
        entry(FIRST, "sending", after(seconds=1), side="sell", amount="5", position="10"),
        entry(FIRST, "filled", after(seconds=2), state="filled", filled="5", price="99", fee="1"),
        entry(FIRST, "verified", after(seconds=3), position="5", target="5"),
        entry(FIRST, "finished", after(seconds=3), None, status="flat", cost="6"),
    )
    assert items(read(written))["closed"].state == "proved"
    everything = incidents.intent("BTC", "sell", "5", "0")
    second = incidents.firing(SECOND, after(minutes=1), "close-everything", 3, 1, everything)
    written.tick(after(minutes=1), [second], snapshot=incidents.snapshot(after(minutes=1)))
    found = read(written)
    assert items(found)["closed"] == ChecklistItem(
        "closed", "Positions confirmed closed", "open",
        "close-everything was recorded only: nothing was sent, see what is still open",
    )  # fmt: skip
    text = report_markdown(found)
    assert "Nothing that was acted on: the venue shows 1 position at target." in text
    assert (
        "**Not closed:** the 1 order of close-everything at 00:01:00 was recorded only, and nothing was sent." in text
    )


def test_an_order_of_unknown_fate_proves_nothing_about_positions_and_money(written: HandWritten) -> None:
    """The venue showed the target once; the order that nobody knows about may still be filled, and cost something."""
    cut_in_half(
        written,
        entry(FIRST, "sending", after(seconds=1), side="sell", amount="5", position="10"),
        entry(FIRST, "unknown", after(seconds=2), text="no answer within 5 s"),
        entry(FIRST, "verified", after(seconds=3), position="5", target="5"),
        entry(FIRST, "finished", after(seconds=3), None, status="abandoned", reason="superseded"),
    )
    found = items(read(written))
    assert (found["closed"].state, found["closed"].proof) == ("open", "1 order of unknown status may still be filled")
    assert (found["counted"].state, found["counted"].proof) == (
        "open", "what 1 order of unknown status realised and cost is unknown",
    )  # fmt: skip


def test_totals_are_unknown_while_an_order_is(written: HandWritten) -> None:
    """One fill is known and one order is not: no number is given for what the close came to."""
    cut_in_half(
        written,
        entry(FIRST, "sending", after(seconds=1), side="sell", amount="3", position="10"),
        entry(FIRST, "filled", after(seconds=2), state="filled", filled="3", price="99", fee="1"),
    )
    assert read(written).money.fees == 1
    written.store.append(entry(FIRST, "sending", after(seconds=4), "ETH", side="buy", amount="2", position="7"))
    money = read(written).money
    assert (money.realised, money.fees, money.slippage, money.cost) == (None, None, None, None)
