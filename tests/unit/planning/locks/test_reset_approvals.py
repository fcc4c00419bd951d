"""A reset that other people must approve first: who counts, what is refused, and what never asks.

An account of 1,000 falls to 850 at minute 1, where a stage with `reset_approvals` fires.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import Graph, SignalRef
from killswitch.operations.pages.wording import pending_lines
from killswitch.planning.interpreter import Outcome
from killswitch.planning.operator.reset_approvals import reset_subject
from tests import graphs
from tests.graphs import close
from tests.runner_world import book
from tests.unit.planning.locks.test_no_reset import Desk, policy
from tests.unit.planning.test_unreachable_accounts import down, failing, fired_during_outage
from tests.worlds import after, operator_event, snapshot

PEOPLE = st.sampled_from(["ann", "Ann", "bob", "cid", "operator-1"])


class Approved(Desk):
    """The desk of a time without a reset, with approvals instead."""

    def __init__(self, needed: int = 1, **fields: Any) -> None:
        super().__init__(policy(reset_approvals=needed, **fields))

    @property
    def subject(self) -> str:
        (machine,) = self.interpreter.status()
        return reset_subject("desk", "account/main", machine.decision or "nothing")

    def approves(self, person: str, minute: float, subject: str | None = None) -> Outcome:
        """A verified approval, as the source passes it on."""
        name = f"approve-{person}-{minute}"
        event = operator_event("approve", after(minutes=minute), None, name, approves=subject or self.subject)
        return self.tick(minute, replace(event, author=person))

    def resets(self, minute: float, author: str = "operator-1", ids: tuple[str, ...] | None = None) -> Outcome:
        event = operator_event("reset", after(minutes=minute), "account/main", f"reset-{minute}")
        return self.tick(minute, replace(event, author=author, ids=ids))


def test_a_reset_without_an_approval_is_refused_with_the_command_that_gives_one() -> None:
    """The event is refused as a whole, so that it lifts no lock either, and the page says what to do."""
    desk = Approved(2)
    refused = desk.resets(10)
    assert (refused.decisions, refused.refused, desk.level) == ((), {"reset-10"}, 1)
    (notice,) = refused.notices
    assert notice.severity == "page"
    assert "stop of desk on account/main needs 2 approvals by other people" in notice.text
    assert "ksctl approve --purpose reset --head desk/account/main" in notice.text
    assert "Closing, cancelling and stricter locks are possible meanwhile" in notice.text


def test_two_people_approve_and_a_third_resets() -> None:
    """After one approval it is refused, after the second it is carried out."""
    desk = Approved(2)
    desk.approves("ann", 10)
    assert desk.resets(11).refused
    (notice,) = desk.approves("bob", 12).notices
    assert notice.text == "the reset of stop is approved by bob: 2 of 2 approvals"
    assert [each.kind for each in desk.resets(13).decisions] == ["reset"]
    assert desk.level == 0


@pytest.mark.parametrize("author", ["ann", "ANN"])
def test_who_has_approved_does_not_reset_with_it(author: str) -> None:
    """Two people: the approval of the author of the reset does not count for it, in whatever letters."""
    desk = Approved(1)
    desk.approves("ann", 10)
    assert desk.resets(11, author=author).refused
    assert desk.resets(12, author="bob").decisions


@pytest.mark.parametrize(
    ("approver", "author"),
    [("ann@example.com", "ann"), ("ann", "ann@example.com"), ("Ann Lee <ann+ops@example.com>", "ANN@other.example")],
)
def test_another_name_of_the_same_person_is_no_second_person(approver: str, author: str) -> None:
    """The key names an address, and the token or the user of the machine only the part before it."""
    desk = Approved(1)
    desk.approves(approver, 10)
    assert desk.resets(11, author=author).refused
    assert desk.resets(12, author="bob@example.com").decisions


def test_a_firing_that_could_not_latch_needs_its_approvals_too() -> None:
    """Its account cannot be read, so that its close waits; its lock is in force, and a reset would lift it."""
    lock_and_halve = (LockTrading("reduce_only", None), close("both", "0.5"))
    made = failing(actions=lock_and_halve)
    stages = tuple(replace(each, reset_approvals=1) for each in made.stages)
    interpreter = fired_during_outage(replace(made, mode="enforce", stages=stages))
    (machine,) = interpreter.status()
    assert (machine.level, machine.latched) == (2, False)
    reset = replace(operator_event("reset", after(seconds=4), "account/main", "r"), ids=(machine.decision or "",))
    assert interpreter.tick(snapshot(after(seconds=4), down("main"), events=(reset,))).refused == {"r"}
    subject = reset_subject("test", "account/main", machine.decision or "")
    approval = operator_event("approve", after(seconds=5), None, "a", approves=subject)
    events = (replace(approval, author="ann"), replace(reset, id="again"))
    done = interpreter.tick(snapshot(after(seconds=5), down("main"), events=events))
    assert (done.refused, done.decisions[0].kind) == (frozenset(), "reset")


@given(people=st.lists(PEOPLE, max_size=6), author=PEOPLE, needed=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_a_reset_is_carried_out_exactly_with_as_many_other_people_as_declared(
    people: list[str], author: str, needed: int
) -> None:
    """Whoever approves how often: people are counted once, and the author of the reset is none of them."""
    desk = Approved(needed)
    for number, person in enumerate(people):
        desk.approves(person, 10 + number)
    others = {each.lower() for each in people} - {author.lower()}
    assert bool(desk.resets(30, author=author).decisions) is (len(others) >= needed)


def test_one_person_counts_once() -> None:
    """The second approval is answered with a warning."""
    desk = Approved(2)
    desk.approves("ann", 10)
    (notice,) = desk.approves("Ann", 11).notices
    assert (notice.severity, notice.title) == ("warning", "an approval does not count")


@pytest.mark.parametrize("subject", ["reset/desk/account/main/firing/older", "reset/other/account/main/firing/x"])
def test_an_approval_of_another_firing_does_not_count(subject: str) -> None:
    """What fires later is another firing, which nobody has seen yet."""
    desk = Approved(1)
    (notice,) = desk.approves("ann", 10, subject).notices
    assert notice.title == "an approval does not count"
    assert desk.resets(11).refused


def test_an_approval_of_a_step_approves_no_reset() -> None:
    """Its subject is another one."""
    desk = Approved(1)
    desk.approves("ann", 10, "recovery/desk/account/main/step/1/since/2024-01-01T00:00:00Z")
    assert desk.resets(11).refused


def test_approvals_outlive_a_restart_and_are_gone_with_the_firing() -> None:
    """They are stored with the state of the scope; after the reset the next firing needs its own."""
    desk = Approved(1)
    desk.approves("ann", 10)
    again = desk.restarted(policy(reset_approvals=1))
    assert [each.kind for each in again.commands("reset", 12).decisions] == ["reset"]
    (machine,) = again.interpreter.status()
    assert machine.reset_approvals is UNSET


def test_status_says_how_many_are_needed_and_who_has_approved() -> None:
    """In the lines under a stage table."""
    desk = Approved(2)
    desk.approves("ann", 10)
    (machine,) = desk.interpreter.status()
    assert list(pending_lines(machine, after(minutes=11))) == [
        "its reset needs 2 approvals by other people than who gives it; approved by ann"
    ]


@pytest.mark.parametrize("kind", ["close", "halt", "lock", "cancel", "unlock"])
def test_nothing_else_waits_for_a_second_person(kind: str) -> None:
    """What reduces risk never does; an unlock ends locks by hand only."""
    at = after(minutes=10)
    event = operator_event(kind, at, "account/main", "e", lock="all")  # type: ignore[arg-type]  # one of the kinds
    assert not Approved(2).tick(10, event).refused


def test_a_policy_that_only_observes_holds_back_nothing() -> None:
    """Nothing is locked by it."""
    desk = Approved(1).restarted(replace(policy(reset_approvals=1), mode="observe"))
    assert not desk.commands("reset", 12).refused


def test_a_reset_that_names_another_firing_needs_no_approval() -> None:
    """It leaves this one in force."""
    desk = Approved(1)
    outcome = desk.resets(10, ids=("another",))
    assert (outcome.refused, desk.level) == (frozenset(), 1)


def ladder(lower: int, higher: int) -> Graph:
    """`stop` at a loss of 10%, and `flat`, one level above, at one of 20%."""
    (stop,) = policy(reset_approvals=lower).stages
    flat = replace(stop, name="flat", level=2, any_of=(1,), reset_approvals=higher)
    triggers = [graphs.trigger("fall", 0, 0.10), graphs.trigger("deeper", 0, 0.20)]
    return graphs.graph([SignalRef("equity.loss_from_start")], triggers, [flat, stop], policy="desk")


class Deepening(Approved):
    """The account falls on to 750 at minute 3, where the higher stage fires."""

    def __init__(self, lower: int, higher: int) -> None:
        Desk.__init__(self, ladder(lower, higher))
        self.deeper(3)

    def deeper(self, minute: float) -> None:
        self.interpreter.tick(snapshot(after(minutes=minute), book("750")))


@pytest.mark.parametrize(("lower", "higher", "needed"), [(2, 0, 2), (2, 1, 2), (1, 2, 2), (0, 1, 1)])
def test_a_reset_that_ends_several_stages_needs_the_approvals_of_the_strictest(
    lower: int, higher: int, needed: int
) -> None:
    desk = Deepening(lower, higher)
    assert desk.level == 2
    for number, person in enumerate(["ann", "bob"][:needed]):
        assert desk.resets(10 + 2 * number).refused
        desk.approves(person, 11 + 2 * number)
    assert [each.kind for each in desk.resets(20).decisions] == ["reset"]


def test_the_demand_of_a_lower_stage_survives_a_restart_and_a_new_name_and_ends_with_the_reset() -> None:
    desk = Deepening(1, 0)
    high, low = ladder(1, 0).stages
    desk.restarted(replace(ladder(1, 0), stages=(high, replace(low, name="halt", formerly="stop"))))
    assert desk.resets(10).refused
    desk.approves("ann", 11)
    assert desk.resets(12).decisions
    desk.tick(13)
    assert [each.reset_approvals for each in desk.interpreter.status()] == [UNSET]


def test_an_edit_takes_the_demand_of_a_lower_stage_back() -> None:
    """The edit is a change that needs approvals itself."""
    desk = Deepening(1, 0)
    desk.restarted(ladder(0, 0))
    assert desk.resets(10).decisions


def test_an_approval_of_the_lower_firing_does_not_count_once_the_higher_has_fired() -> None:
    desk = Deepening.__new__(Deepening)
    Desk.__init__(desk, ladder(1, 0))
    desk.approves("ann", 2)
    desk.deeper(3)
    assert desk.resets(4).refused
