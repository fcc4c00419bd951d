"""What is sent when: groups, holds, escalation, all-clears, restarts, and the cases that implementations get wrong."""

from __future__ import annotations

from msgspec.structs import replace

from killswitch.graph.routing import Escalation, Inhibition, MessageSilence
from killswitch.model.instant import HOUR, MINUTE, SECOND
from killswitch.planning.routing.holding import Times
from killswitch.planning.routing.state import (
    Acknowledgement,
    Announcement,
    encode_routing,
    read_routing,
    renamed_routing,
)
from killswitch.planning.routing.step import route
from tests.unit.planning.routing.routing_world import (
    ANY,
    ESCALATES,
    NIGHT,
    PAGE_INHIBITS,
    START,
    Routing,
    about,
    firing,
    node,
    notice,
    over,
    receiver,
    reset,
    rule,
    tree,
)

GROUPED = node(
    "grouped", ANY, "desk", group_by=("policy",), group_wait=30 * SECOND, group_interval=5 * MINUTE,
    repeat_interval=HOUR,
)  # fmt: skip
SILENCE = MessageSilence("upgrade", rule(policies=("p",)), "ada", "venue upgrade", START + HOUR)


def acknowledge(number: int, *about: str, by: str = "bob") -> Acknowledgement:
    return Acknowledgement(by, START, number, frozenset(about))


def test_an_urgent_message_waits_for_no_group_silence_mute_time_or_inhibition() -> None:
    everything_holds = node("all", ANY, "desk", mute=("night",), group_wait=5 * MINUTE, group_interval=HOUR)
    of = tree(
        everything_holds, mute_times=(NIGHT,), inhibitions=(Inhibition(ANY, ANY),), silences=(SILENCE,),
    )  # fmt: skip
    run = Routing(of)
    assert run.step(firing("f1")) == [("desk", ("f1",), "first")]
    assert run.step(firing("f2", "account/b")) == [("desk", ("f2",), "first")]
    assert run.suppressed == []


def test_500_scopes_that_fire_in_one_tick_are_one_dispatch_of_500() -> None:
    run = Routing(tree(GROUPED))
    found = run.step(*(firing(f"f{number}", f"account/{number}") for number in range(500)))
    assert [(to, len(ids)) for to, ids, _ in found] == [("desk", 500)]


def test_a_group_is_sent_after_its_wait_then_at_least_its_interval_apart() -> None:
    run = Routing(tree(GROUPED))
    assert run.step(notice("a")) == []
    assert run.step(notice("b"), after=29 * SECOND) == []
    assert run.step(after=SECOND) == [("desk", ("a-begins", "b-begins"), "first")]
    assert run.step(notice("c"), after=SECOND) == []
    assert run.step(after=5 * MINUTE - 2 * SECOND) == []
    assert run.step(after=SECOND) == [("desk", ("c-begins",), "first")]


def test_what_is_graver_than_all_before_it_is_sent_at_once() -> None:
    run = Routing(tree(GROUPED))
    run.step(notice("a"))
    assert run.step(notice("b", severity="page"), after=SECOND) == [("desk", ("a-begins", "b-begins"), "first")]


def test_an_unchanged_group_is_sent_again_after_its_repeat_interval_until_it_is_over() -> None:
    run, begun = Routing(tree(GROUPED)), notice("a")
    run.step(begun)
    run.step(after=30 * SECOND)
    assert run.step(after=HOUR - SECOND) == []
    assert run.step(after=SECOND) == [("desk", ("a-begins",), "repeat")]
    assert run.step(over(begun), after=SECOND) == [("desk", ("a-ends",), "all_clear")]
    assert run.step(after=2 * HOUR) == []


def test_a_notice_that_is_over_in_its_group_wait_is_dropped_and_recorded() -> None:
    run, begun = Routing(tree(GROUPED)), notice("a")
    run.step(begun)
    assert run.step(over(begun), after=SECOND) == []
    assert run.step(after=HOUR) == []
    assert run.suppressed == [("desk", "a-begins", "ended"), ("desk", "a-ends", "not_sent")]


def test_an_urgent_message_that_is_over_in_the_same_tick_is_sent_before_its_all_clear() -> None:
    run = Routing(tree())
    assert run.step(reset("r"), firing("f")) == [("desk", ("f",), "first"), ("desk", ("r",), "all_clear")]


def test_a_silence_holds_until_it_ends_and_then_what_still_lasts_is_sent_once() -> None:
    run = Routing(tree(silences=(SILENCE,)))
    ended, lasting = notice("a"), notice("b")
    run.step(ended, lasting)
    assert run.suppressed == [("desk", "a-begins", "silenced"), ("desk", "b-begins", "silenced")]
    run.step(over(ended), after=MINUTE)
    assert run.suppressed[2:] == [("desk", "a-begins", "ended"), ("desk", "a-ends", "not_sent")]
    assert run.step(after=HOUR) == [("desk", ("b-begins",), "first")]
    assert run.step(after=HOUR) == []


def test_a_silence_ends_after_its_length_although_the_civil_clock_was_set_back() -> None:
    of, begun = tree(silences=(SILENCE,)), notice("a")
    held = route(of, Routing(of).state, [begun], Times(0, START))
    set_back = START - 10 * HOUR
    still = route(of, held.state, [], Times(HOUR - 1, set_back))
    assert still.dispatches == ()
    assert [each.announcements for each in route(of, still.state, [], Times(HOUR, set_back)).dispatches] == [(begun,)]


def test_a_silence_ends_at_its_end_although_the_civil_clock_was_set_ahead() -> None:
    of, begun = tree(silences=(SILENCE,)), notice("a")
    held = route(of, Routing(of).state, [begun], Times(0, START))
    assert len(route(of, held.state, [], Times(SECOND, START + HOUR)).dispatches) == 1


def test_a_mute_time_holds_at_its_route_and_not_at_the_next() -> None:
    routes = (node("one", ANY, "desk", mute=("night",), continues=True), node("two", ANY, "phone"))
    run = Routing(tree(*routes, mute_times=(NIGHT,)))
    assert run.step(notice("a")) == [("phone", ("a-begins",), "first")]
    assert run.suppressed == [("desk", "a-begins", "muted")]


def test_an_active_alert_that_the_receiver_was_sent_inhibits_others_with_equal_labels() -> None:
    run = Routing(tree(inhibitions=(PAGE_INHIBITS,)))
    source = notice("source", severity="page")
    run.step(source)
    assert run.step(notice("same"), notice("other", "account/b")) == [("desk", ("other-begins",), "first")]
    assert run.step(over(source)) == [("desk", ("source-ends",), "all_clear"), ("desk", ("same-begins",), "first")]
    assert run.step(after=HOUR) == []


def test_an_alert_that_another_receiver_was_sent_inhibits_nothing_here() -> None:
    pages = node("pages", rule(severities=("page",)), "phone")
    run = Routing(tree(pages, inhibitions=(PAGE_INHIBITS,)))
    assert run.step(notice("source", severity="page"), notice("a")) == [
        ("phone", ("source-begins",), "first"), ("desk", ("a-begins",), "first"),
    ]  # fmt: skip


def test_two_alerts_that_inhibit_each_other_do_not_both_vanish() -> None:
    run = Routing(tree(inhibitions=(Inhibition(ANY, ANY, ("scope",)),)))
    run.step(notice("a"), notice("b"))
    assert run.sent == [("desk", ("a-begins",), "first")]
    assert run.suppressed == [("desk", "b-begins", "inhibited")]


def test_two_absent_labels_are_not_equal() -> None:
    by_desk = Inhibition(ANY, ANY, ("desk",))
    run = Routing(tree(inhibitions=(by_desk,)))
    run.step(notice("a"), notice("b"))
    assert len(run.sent) == 2


def test_a_firing_escalates_once_to_each_step_until_somebody_acknowledges_it() -> None:
    steps = (*ESCALATES, Escalation(10 * MINUTE, "third"))
    three = (receiver("desk"), receiver("phone"), receiver("third"))
    run = Routing(tree(receivers=three, escalate=steps))
    run.step(firing("f"))
    assert run.step(after=5 * MINUTE - 1) == []
    assert run.step(after=1) == [("phone", ("f",), "escalation")]
    assert run.step(after=MINUTE) == []
    run.step(acknowledgements=[acknowledge(1)])
    assert run.step(after=HOUR) == []
    assert [page.acknowledged_by for page in run.state.pages] == ["bob"]


def test_a_firing_that_arrives_while_the_page_is_read_still_escalates() -> None:
    run = Routing(tree(escalate=ESCALATES))
    run.step(firing("shown"))
    shown = run.state.number
    run.step(firing("later", "account/b"), after=SECOND)
    run.step(acknowledgements=[acknowledge(shown)])  # the click is after both
    assert run.step(after=5 * MINUTE) == [("phone", ("later",), "escalation")]


def test_an_acknowledgement_that_is_due_with_the_escalation_of_a_downtime_counts_first() -> None:
    run = Routing(tree(escalate=ESCALATES))
    run.step(firing("f"))
    assert run.step(after=HOUR, acknowledgements=[acknowledge(1)]) == []


def test_a_notice_does_not_escalate() -> None:
    run = Routing(tree(escalate=ESCALATES))
    run.step(notice("a", severity="page"))
    assert run.step(after=HOUR) == []


def test_an_acknowledgement_stops_no_reminder_and_a_reset_does() -> None:
    run = Routing(tree(escalate=ESCALATES, remind=HOUR))
    run.step(firing("f"))
    run.step(acknowledgements=[acknowledge(1)])
    assert run.step(after=HOUR) == [("desk", ("f",), "reminder")]
    assert run.step(reset("r"), after=MINUTE) == [("desk", ("r",), "all_clear")]
    assert run.step(after=5 * HOUR) == []


def test_the_all_clear_goes_to_whoever_had_the_alert_although_routes_have_changed_since() -> None:
    run = Routing(tree(node("phones", ANY, "phone")))
    run.step(firing("f"))
    run.tree = tree()
    assert run.step(reset("r")) == [("phone", ("r",), "all_clear")]


def test_the_all_clear_of_a_receiver_that_is_gone_goes_to_the_root() -> None:
    run = Routing(tree(node("phones", ANY, "phone")))
    run.step(firing("f"))
    run.tree = tree(receivers=(receiver("desk"),))
    assert run.step(reset("r")) == [("desk", ("r",), "all_clear")]


def test_an_escalation_to_a_receiver_that_a_reload_took_out_goes_to_the_root() -> None:
    run = Routing(tree(escalate=ESCALATES))
    run.step(firing("f"))
    run.tree = tree(receivers=(receiver("desk"),))
    assert run.step(after=5 * MINUTE) == [("desk", ("f",), "escalation")]


def test_a_firing_in_the_tick_in_which_its_silence_and_its_route_are_reloaded_is_sent() -> None:
    run = Routing(tree(node("phones", ANY, "phone"), silences=(SILENCE,)))
    run.step(notice("a"))
    run.tree = tree(silences=(replace(SILENCE, end=START + 2 * HOUR),))
    assert run.step(firing("f")) == [("desk", ("f",), "first")]


def test_a_restart_repeats_nothing_and_sends_what_fell_due_with_sources_first() -> None:
    inhibits = Inhibition(rule(severities=("page",)), rule(severities=("warning",)), ("scope",))
    of = tree(GROUPED, inhibitions=(inhibits,))
    run = Routing(of)
    run.step(notice("held"), notice("source", severity="page"))
    run.state = read_routing(encode_routing(run.state))
    assert run.step(after=HOUR) == [("desk", ("source-begins",), "first")]
    assert run.suppressed == [("desk", "held-begins", "inhibited")]
    run.state = read_routing(encode_routing(run.state))
    assert run.step() == []


def test_a_real_event_ends_a_drill_and_nothing_of_it_that_waits_is_sent() -> None:
    run = Routing(tree(GROUPED))
    drill = replace(firing("drill", "account/d"), is_urgent=False, is_drill=True)
    run.step(drill)
    assert run.step(firing("real"), after=SECOND) == [("desk", ("real",), "first")]
    run.step(replace(drill, id="more", alert="firing/p/account/e"), after=SECOND)
    assert run.step(after=HOUR) == []
    assert [(message, why) for _, message, why in run.suppressed] == [("drill", "drill_ended"), ("more", "drill_ended")]


def test_messages_that_no_route_takes_are_recorded() -> None:
    from killswitch.planning.routing.tree import build
    from tests.unit.planning.routing.routing_world import Route, RouteTarget, graphs

    flat = Route("pages", rule(severities=("page",)), (RouteTarget("file", "/f"),), HOUR, graphs.HERE)
    of = build([flat], None)
    assert of is not None
    run = Routing(of)
    assert run.step(notice("a")) == []
    assert run.suppressed == [("", "a-begins", "no_route")]


def renamed_reset() -> Announcement:
    """The reset of the firing of `p` on account a, once the policy is called `q`."""
    return replace(reset("r1"), alert="firing/q/account/a", attributes=about("account/a", "info", "reset", policy="q"))


def test_a_held_firing_of_a_policy_that_was_renamed_ends_with_the_reset_of_its_new_name() -> None:
    """A policy that only observes: its firings can be silenced. Over while it was held, it is never sent."""
    routing = Routing(tree(silences=(replace(SILENCE, rule=ANY),)))
    assert routing.step(firing("f1", is_urgent=False)) == []
    routing.state = renamed_routing(routing.state, {"p": "q"})
    routing.step(renamed_reset(), after=MINUTE)
    assert routing.step(after=2 * HOUR) == []


def test_a_repeated_firing_of_a_policy_that_was_renamed_ends_with_the_reset_of_its_new_name() -> None:
    routing = Routing(tree(GROUPED))
    routing.step(firing("f1", is_urgent=False))
    assert routing.step(after=MINUTE) == [("desk", ("f1",), "first")]
    assert routing.step(after=HOUR) == [("desk", ("f1",), "repeat")]
    routing.state = renamed_routing(routing.state, {"p": "q"})
    assert routing.step(renamed_reset(), after=MINUTE) == [("desk", ("r1",), "all_clear")]
    assert routing.step(after=2 * HOUR) == []
