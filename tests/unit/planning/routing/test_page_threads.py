"""One outage is one page: what follows from it updates that page, and nothing of a firing or a close waits for it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.engine.alerts import AlertState, advance
from killswitch.graph.nodes import PolicySet
from killswitch.incident.notify.joining import joined, sent_again
from killswitch.incident.notify.message import Message, decode_message
from killswitch.incident.notify.page_threads import MOST_KEYS
from killswitch.model.alert import Alert, Alerts
from killswitch.model.decision import Decision
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Closing, Residual
from killswitch.model.store import ROUTING, TickRecord
from killswitch.planning.routing.state import encode_routing, read_routing, renamed_routing
from killswitch.runner.notify.notifier import Notifier
from tests.decisions import cut
from tests.runner_world import World
from tests.unit.planning.routing.test_tree_in_a_run import policies
from tests.worlds import START, account, snapshot

CLOSE = cut({"BTC": ("long", Decimal(1), Decimal(1))})
UNREAD = account(None, None, quality="down", reason="no answer within 2 s")
OUTAGE = Alert("outage/main", "page", "account main cannot be read", over="account main can be read again")

STALLED = Alert(
    "closing/main/stalled", "page", "closing on account main makes no progress", part_of=("outage/main",),
    closing_on="main",
)  # fmt: skip
ORDER = replace(STALLED, key="order/ks1/detached", text="order ks1 has an unknown status", lasts=False)


class Desk:
    """Ticks of a notifier with one target, and the pager that rings for a key that is not open."""

    def __init__(self, world: World, of: PolicySet | None = None) -> None:
        self.store = world.open()
        self.notifier = Notifier(of or policies(), self.store, world.clock)  # type: ignore[arg-type] # a policy set
        self.notifier.start()
        self.known = AlertState()
        self.at = START
        self.rung: list[str] = []
        self.open: set[str] = set()
        self.got: list[Message] = []

    def tick(
        self, *found: Alert, closes: tuple[Closing, ...] = (), decisions: tuple[Decision, ...] = (),
        is_read: bool = True, unknown: tuple[str, ...] = (), after: int = 1,
    ) -> list[Message]:  # fmt: skip
        """The messages of a tick, in which these alerts are found, as somebody gets them."""
        self.at += timedelta(seconds=after)
        notices, known = advance(self.known, Alerts(found, unknown), to_micros(self.at))
        of = replace(snapshot(self.at, account("1000") if is_read else UNREAD), closings=closes)
        outgoing = self.notifier.outgoing(of, decisions, notices, decisions, self.known)
        suppressed, live = self.notifier.to_commit()
        record = TickRecord(
            self.at, "sha256:0", (), (), decisions, notices, (), None, (), 0, outgoing, suppressed, live
        )
        self.store.commit_tick(record)
        self.known = known
        messages = [decode_message(each.body) for each in outgoing]
        self._ring(messages)
        self.got += messages
        return messages

    def _ring(self, messages: Iterable[Message]) -> None:
        """A pager whose people acknowledge at once: an event with the key of an open page wakes nobody."""
        for each in messages:
            key = each.key or each.id
            if each.key or not each.resolves:
                if key not in self.open:
                    self.rung.append(each.title)
                self.open.add(key)
            self.open -= set(each.resolves)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(World(tmp_path))


def closing(status: str = "closing", *left: Residual) -> tuple[Closing, ...]:
    return (Closing(CLOSE.id, status, left, Decimal(0), CLOSE.scope),)  # type: ignore[arg-type] # a status


LEFT = Residual("main", "BTC", "long", Decimal(1))


def test_a_venue_that_dies_in_the_middle_of_a_close_rings_once_more_and_is_one_thread(desk: Desk) -> None:
    """The firing, the outage, then updates of it, and one all-clear of everything; the order is in the first page."""
    desk.tick(decisions=(CLOSE,))
    desk.tick(OUTAGE, ORDER, closes=closing(), is_read=False)
    desk.tick(OUTAGE, STALLED, closes=closing(), is_read=False)
    desk.tick(closes=closing())
    desk.tick(closes=closing("flat"))
    assert [title.partition("]")[2].strip().partition(":")[0] for title in desk.rung] == [
        "level 1 one", "account main cannot be read",
    ]  # fmt: skip
    assert {each.thread for each in desk.got} == {CLOSE.id}
    assert desk.open == {desk.got[0].key}


def test_an_update_begins_with_the_word_and_names_the_cause(desk: Desk) -> None:
    desk.tick(decisions=(CLOSE,))
    desk.tick(OUTAGE, closes=closing(), is_read=False)
    (update,) = desk.tick(OUTAGE, STALLED, closes=closing(), is_read=False)
    assert update.title == "[page] update: the close on account main has a problem"
    assert "cause: account main cannot be read" in update.body.splitlines()


def test_an_order_without_an_answer_is_sent_to_nobody_during_an_outage_and_says_why(desk: Desk) -> None:
    desk.tick(decisions=(CLOSE,))
    assert [each.title for each in desk.tick(OUTAGE, ORDER, is_read=False)] == ["[page] account main cannot be read"]
    (suppressed,) = desk.store.suppressions(9)
    assert (suppressed.why, suppressed.by) == (
        "inhibited", "a part of outage/main: order ks1 has an unknown status",
    )  # fmt: skip


def test_an_order_without_an_answer_on_an_account_that_can_be_read_pages(desk: Desk) -> None:
    desk.tick(decisions=(CLOSE,))
    (page,) = desk.tick(replace(ORDER, heading="orders on account main"), closes=closing())
    assert "order ks1 has an unknown status" in page.body
    assert len(desk.rung) == 2


def test_a_close_that_fails_for_another_reason_rings_although_the_outage_before_was_acknowledged(desk: Desk) -> None:
    desk.tick(decisions=(CLOSE,))
    desk.tick(OUTAGE, closes=closing(), is_read=False)
    desk.tick(closes=closing())
    desk.tick(replace(STALLED, text="closing on account main: the market is halted"), closes=closing())
    assert len(desk.rung) == 3


def test_an_outage_of_an_hour_before_hides_no_close_that_fails_in_it(desk: Desk) -> None:
    """The page of the outage was acknowledged long ago; the firing and its failing close ring."""
    desk.tick(OUTAGE, is_read=False)
    desk.tick(OUTAGE, is_read=False, decisions=(CLOSE,), after=3600)
    desk.tick(OUTAGE, STALLED, is_read=False, closes=closing())
    assert len(desk.rung) == 3


def test_what_a_close_has_left_rings_during_the_outage(desk: Desk) -> None:
    desk.tick(decisions=(CLOSE,))
    desk.tick(OUTAGE, STALLED, closes=closing(), is_read=False)
    (end,) = desk.tick(OUTAGE, closes=closing("residual", LEFT), is_read=False, unknown=("closing/main",))
    assert (end.event, desk.rung[-1]) == ("residual", end.title)


def test_a_reset_ends_the_page_of_each_firing_and_of_what_was_left(desk: Desk) -> None:
    higher = replace(CLOSE, id="e" * 20, stage="two", level=2, previous_level=1, as_of=START + timedelta(seconds=1))
    desk.tick(decisions=(CLOSE,))
    desk.tick(decisions=(higher,))
    desk.tick(closes=closing("residual", LEFT))
    assert len(desk.open) == 3
    over = replace(CLOSE, id="r" * 20, stage="reset", kind="reset", level=0, previous_level=2, intents=())
    desk.tick(decisions=(replace(over, as_of=START + timedelta(seconds=4)),))
    assert desk.open == set()


def test_messages_that_are_one_have_the_key_that_they_share_or_one_that_rings(desk: Desk) -> None:
    """And what is sent again has none: it is sent because nobody has done anything about the first."""
    (fired,) = desk.tick(decisions=(CLOSE,))
    (outage,) = desk.tick(OUTAGE, closes=closing(), is_read=False)
    (update,) = desk.tick(OUTAGE, STALLED, closes=closing(), is_read=False)
    over = desk.tick(closes=closing())
    assert joined([outage, update], "both").key == outage.key == update.key
    assert joined([fired, outage], "both").key == "both"
    assert joined([update, over[0]], "both").key == "both"
    assert joined(over, "both").key == ""
    assert set(joined(over, "both").resolves) == {key for each in over for key in each.resolves}
    assert (sent_again(fired, "escalation", "again").key, fired.key != "") == ("", True)


def test_the_thread_of_an_all_clear_is_that_of_its_page_after_a_restart(tmp_path: Path) -> None:
    """Also where the close has ended meanwhile."""
    world = World(tmp_path)
    desk = Desk(world)
    desk.tick(decisions=(CLOSE,))
    (page,) = desk.tick(OUTAGE, closes=closing(), is_read=False)
    desk.store.close()
    again = Desk(world)
    again.known, again.at = desk.known, desk.at
    (over,) = again.tick()
    assert (over.thread, page.key in over.resolves) == (page.thread, True)


def over(decision: Decision, desk: Desk) -> Decision:
    """The reset of a firing."""
    return replace(
        decision, id="r" * 20, stage="reset", kind="reset", level=0, previous_level=decision.level, intents=(),
        as_of=desk.at + timedelta(seconds=1),
    )  # fmt: skip


def test_a_reset_ends_the_pages_of_its_firing_however_many_others_fired_since_and_after_a_restart(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    desk = Desk(world)
    (fired,) = desk.tick(decisions=(CLOSE,))
    for number in range(30):
        desk.tick(decisions=(replace(CLOSE, id=f"{number:020d}", scope=f"account/{number}", as_of=desk.at),))
    desk.store.close()
    again = Desk(world)
    again.known, again.at, again.open = desk.known, desk.at, desk.open
    (end,) = again.tick(decisions=(over(CLOSE, again),))
    assert (fired.key in end.resolves, end.thread, len(again.open)) == (True, fired.thread, 30)


def test_a_reset_under_another_name_of_the_policy_ends_the_page_of_its_firing(tmp_path: Path) -> None:
    world = World(tmp_path)
    desk = Desk(world)
    (fired,) = desk.tick(decisions=(CLOSE,))
    renamed = renamed_routing(read_routing(desk.store.live(ROUTING)), {CLOSE.policy: "another"})
    live = {ROUTING: encode_routing(renamed)}
    at = desk.at + timedelta(seconds=1)
    desk.store.commit_tick(TickRecord(at, "sha256:0", (), (), (), (), (), None, (), 0, (), (), live))
    desk.store.close()
    again = Desk(world)
    again.known, again.at, again.open = desk.known, at, desk.open
    (end,) = again.tick(decisions=(over(replace(CLOSE, policy="another"), again),))
    assert (end.thread, again.open) == (fired.thread, set())


def test_a_later_incident_of_the_scope_names_no_page_of_the_one_before(desk: Desk) -> None:
    (first,) = desk.tick(decisions=(CLOSE,))
    desk.tick(decisions=(over(CLOSE, desk),))
    desk.tick(decisions=(replace(CLOSE, id="2" * 20, as_of=desk.at),))
    (end,) = desk.tick(decisions=(replace(over(CLOSE, desk), id="3" * 20),))
    assert first.key not in end.resolves
    assert desk.open == set()


def test_a_reset_ends_the_pages_of_an_incident_with_few_requests_to_the_pager(desk: Desk) -> None:
    """Each key is a request, and all of them have half a minute: those of the firings are first."""
    fired = []
    for level in range(1, 11):
        higher = replace(CLOSE, id=f"{level:020d}", level=level, previous_level=level - 1, as_of=desk.at)
        fired += desk.tick(decisions=(higher,))
    (end,) = desk.tick(decisions=(over(replace(CLOSE, level=10), desk),))
    assert {each.key for each in fired} <= set(end.resolves)
    assert (len(end.resolves), desk.open) == (MOST_KEYS, set())


def test_a_close_that_ends_after_the_reset_opens_no_page_again_and_what_it_left_does(desk: Desk) -> None:
    desk.tick(decisions=(CLOSE,))
    desk.tick(decisions=(over(CLOSE, desk),), closes=closing())
    (flat,) = desk.tick(closes=closing("flat"))
    assert (flat.event, flat.key, desk.open) == ("closed", "", set())
    (left,) = desk.tick(closes=closing("residual", LEFT))
    assert desk.rung[-1] == left.title


def test_a_close_that_goes_on_again_does_not_end_the_page_of_the_outage_that_lasts(desk: Desk) -> None:
    """It ends with the outage."""
    desk.tick(decisions=(CLOSE,))
    (outage,) = desk.tick(OUTAGE, closes=closing(), is_read=False)
    desk.tick(OUTAGE, STALLED, closes=closing(), is_read=False)
    desk.tick(OUTAGE, closes=closing(), is_read=False)
    assert outage.key in desk.open
    desk.tick(closes=closing())
    assert outage.key not in desk.open


def test_an_outage_that_is_over_leaves_the_page_open_of_the_close_that_still_fails(desk: Desk) -> None:
    desk.tick(decisions=(CLOSE,))
    (outage,) = desk.tick(OUTAGE, closes=closing(), is_read=False)
    desk.tick(OUTAGE, STALLED, closes=closing(), is_read=False)
    desk.tick(STALLED, closes=closing())
    assert outage.key in desk.open
    desk.tick(closes=closing())
    assert outage.key not in desk.open


def test_the_end_of_an_alert_ends_every_page_of_it(desk: Desk) -> None:
    """One that grew has rung twice; one that was sent before and in an incident has a page of each."""
    desk.tick(replace(STALLED, part_of=(), measure=(Decimal(1),)))
    desk.tick(replace(STALLED, part_of=(), measure=(Decimal(2),), text="closing on account main is worse"))
    assert len(desk.open) == 2
    desk.tick()
    assert desk.open == set()
    desk.tick(replace(OUTAGE, measure=(Decimal(0),)), is_read=False, after=7200)
    (fired,) = desk.tick(replace(OUTAGE, measure=(Decimal(0),)), is_read=False, decisions=(CLOSE,))
    desk.tick(replace(OUTAGE, measure=(Decimal(1),), text="refused"), is_read=False, closes=closing())
    assert len(desk.open) == 3
    desk.tick()
    assert desk.open == {fired.key}


FOUND = st.sets(st.sampled_from(("unread", "order", "stalled", "uncloseable", "fired", "left")))


@settings(max_examples=150, deadline=None)
@given(st.lists(FOUND, min_size=1, max_size=8))
def test_nothing_of_a_firing_a_remainder_or_a_failed_close_waits_or_is_hidden(
    tmp_path_factory: pytest.TempPathFactory, ticks: list[set[str]]
) -> None:
    """Each is sent in its tick. A firing and a remainder ring; a failed close rings, or the page of its outage has."""
    desk = Desk(World(tmp_path_factory.mktemp("desk")))
    desk.tick(decisions=(CLOSE,))
    was_left = was_stalled = was_uncloseable = False
    for number, found in enumerate(ticks):
        is_read, before = "unread" not in found, set(desk.open)
        stalled, uncloseable = "stalled" in found, "uncloseable" in found and "stalled" not in found
        other = replace(
            STALLED, key="closing/main/uncloseable/BTC", text="BTC waits", heading="closing on account main"
        )
        alerts = [OUTAGE] * (not is_read) + [ORDER] * ("order" in found) + [STALLED] * stalled + [other] * uncloseable
        fires = "fired" in found
        decision = replace(CLOSE, id=f"{number:020d}", level=2, previous_level=1, as_of=desk.at + timedelta(seconds=1))
        is_left = was_left or "left" in found
        closes = closing("residual", LEFT) if is_left else closing()
        messages = desk.tick(
            *alerts, closes=closes, is_read=is_read, decisions=(decision,) * fires,
            unknown=("closing/main",) if stalled else (),
        )  # fmt: skip
        bodies = "\n".join(f"{each.event} {each.title}\n{each.body}" for each in messages)
        assert "fired [page]" in bodies or not fires
        assert "residual" in bodies or is_left == was_left
        assert "makes no progress" in bodies or not (stalled and not was_stalled)
        assert "BTC waits" in bodies or not (uncloseable and not was_uncloseable)
        for each in messages:
            rings = (each.key or each.id) not in before
            if each.event in ("fired", "residual"):
                assert rings, each
            elif "closing on account main" in each.body and each.key and not rings:
                assert not is_read, each
        was_left = is_left
        was_stalled, was_uncloseable = was_stalled or stalled, was_uncloseable or uncloseable
    desk.store.close()
