"""A time before which nobody resets a scope: no operator, no condition, no edit of the policy. Worked by hand.

An account of 1,000 falls to 850 at minute 1, where a stage with `no_reset_for: 4h` fires. Its condition for an
automatic reset is true all the time, and its cooldown is 5 minutes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import AutoReset, Compare, Graph, Number, SignalRead, SignalRef
from killswitch.model.instant import HOUR, MINUTE, LocalTime
from killswitch.model.snapshot import Event
from killswitch.operations.pages.wording import orphan_line, pending_lines
from killswitch.planning.interpreter import Interpreter, Outcome
from tests import graphs
from tests.runner_world import book
from tests.worlds import after, operator_event, snapshot

AUTOMATIC = AutoReset(condition=1, hold=0)


def policy(*, reset: AutoReset | None = None, breaker: bool = False, **fields: Any) -> Graph:
    """Locks at a loss of 10% from the start."""
    stop = graphs.stage("stop", 1, 0, cooldown=5 * MINUTE, reset=reset, actions=(LockTrading("reduce_only", None),))
    return graphs.graph(
        [SignalRef("equity.loss_from_start")], [graphs.trigger("fall", 0, 0.10)], [replace(stop, **fields)],
        reset_when=(Compare("<", SignalRead(0), Number(0.9)),), policy="desk", is_breaker=breaker,
    )  # fmt: skip


class Desk:
    """The account, read once a minute: 1,000 at the start, 850 from minute 1 on."""

    def __init__(self, made: Graph | None = None, armed: Collection[str] | None = None) -> None:
        self.interpreter = Interpreter(graphs.policy_set(made or policy(no_reset_for=4 * HOUR)), armed)
        self.tick(0)
        self.fired = self.tick(1)

    def tick(self, minute: float, *events: Event) -> Outcome:
        seen = snapshot(after(minutes=minute), book("1000" if minute < 1 else "850"), events=events)
        return self.interpreter.tick(seen)

    def commands(self, kind: Any, minute: float, scope: str | None = "account/main") -> Outcome:
        """An operator's command at this minute."""
        return self.tick(minute, operator_event(kind, after(minutes=minute), scope, f"{kind}-{minute}"))

    @property
    def level(self) -> int:
        (machine,) = self.interpreter.status()
        return machine.level

    def restarted(self, *graphs_: Graph) -> Desk:
        """The same account after a restart with these policies."""
        states = self.interpreter.states()
        self.interpreter = Interpreter(graphs.policy_set(*graphs_))
        self.interpreter.restore(states, lambda *_: [])
        return self


@pytest.mark.parametrize("kind", ["reset", "unlock"])
def test_neither_a_reset_nor_an_unlock_is_carried_out_before(kind: str) -> None:
    """It is refused with the place, the time and what to do, and its event must not lift the lock either."""
    desk = Desk()
    refused = desk.commands(kind, 60)
    assert refused.decisions == ()
    assert refused.refused == {f"{kind}-60"}
    assert desk.level == 1
    (notice,) = refused.notices
    assert (notice.kind, notice.severity, notice.subject) == ("nothing_selected", "page", f"{kind}-60")
    assert notice.text == (
        f"the {kind} by operator-1 was not carried out: stop of desk (policy.yaml:1) allows none on account/main "
        "before 2024-01-01T04:01:00Z, in 3h 1m. Nobody can lift that earlier, and the command is not kept: give it "
        "again from then on. Closing, cancelling and stricter locks are possible meanwhile"
    )


def test_from_then_on_a_reset_is_carried_out() -> None:
    """At the very instant."""
    desk = Desk()
    assert desk.commands("reset", 241 - 1e-4).refused
    done = desk.commands("reset", 241)
    assert (done.refused, [each.kind for each in done.decisions]) == (frozenset(), ["reset"])
    assert desk.level == 0


def test_a_command_for_all_scopes_is_refused_as_a_whole() -> None:
    """An event without a scope would reset the account as well."""
    assert Desk().commands("reset", 60, None).refused == {"reset-60"}


def test_other_scopes_are_reset() -> None:
    """The portfolio's own locks are not those of the account."""
    assert not Desk().commands("unlock", 60, "portfolio").refused


@pytest.mark.parametrize("kind", ["lock", "restate"])
def test_other_commands_are_carried_out(kind: str) -> None:
    """What tightens, and what only explains."""
    desk = Desk()
    event = operator_event(kind, after(minutes=60), id_="e", lock="all")  # type: ignore[arg-type] # one of the kinds
    assert not desk.tick(60, event).refused


def test_the_condition_of_an_automatic_reset_waits_as_well() -> None:
    """Its cooldown is over after 6 minutes, and it resets after 4 hours."""
    desk = Desk(policy(reset=AUTOMATIC, no_reset_for=4 * HOUR))
    assert [desk.tick(minute).decisions for minute in (10, 100, 240)] == [(), (), ()]
    (done,) = desk.tick(241).decisions
    assert done.kind == "reset"
    without = Desk(policy(reset=AUTOMATIC))
    assert [each.kind for each in without.tick(10).decisions] == ["reset"]


def test_a_time_of_the_day_is_the_next_one_after_the_firing() -> None:
    """The firing is at 01:01 in Berlin."""
    desk = Desk(policy(no_reset_before=LocalTime(8, 0, "Europe/Berlin")))
    assert desk.commands("reset", 7 * 60 - 1).refused
    assert not desk.commands("reset", 7 * 60).refused


def test_the_decision_and_the_status_show_until_when() -> None:
    """For the report, `plan` and `status`."""
    desk = Desk()
    (decision,) = desk.fired.decisions
    assert decision.no_reset_before == after(minutes=241)
    (machine,) = desk.interpreter.status()
    assert machine.no_reset_before == after(minutes=241)
    line = "nobody resets it before 2024-01-01T04:01:00Z, neither `ksctl reset` nor `ksctl unlock`"
    assert list(pending_lines(machine, after(minutes=60))) == [line]
    assert list(pending_lines(machine, after(minutes=241))) == []


@pytest.mark.parametrize("edited", [policy(), policy(no_reset_for=MINUTE), replace(policy(), mode="observe")])
def test_no_edit_and_no_restart_shortens_it(edited: Graph) -> None:
    """The time is in the stored state: without the key, with a shorter one, or as an observing policy."""
    desk = Desk().restarted(edited)
    assert desk.commands("reset", 60).refused
    assert not desk.commands("reset", 241).refused


def test_a_policy_that_was_taken_out_leaves_it_behind() -> None:
    """Its latch is an orphan, which `ksctl reset` ends: not before."""
    desk = Desk().restarted(replace(policy(), policy="other"))
    refused = desk.commands("reset", 60)
    assert refused.refused == {"reset-60"}
    assert "stop of desk, which is gone, allows none on account/main before 2024-01-01T04:01:00Z" in (
        refused.notices[0].text
    )
    (orphan,) = desk.interpreter.orphans()
    assert orphan_line(orphan).endswith("ends it and lifts its lock, not before 2024-01-01T04:01:00Z")
    assert [each.kind for each in desk.commands("reset", 241).decisions] == ["reset"]


@pytest.mark.parametrize(
    "desk",
    [
        Desk(replace(policy(no_reset_for=4 * HOUR), mode="observe")),
        Desk(armed=()),
    ],
    ids=["an observing policy", "an unarmed account"],
)
def test_a_firing_that_is_only_recorded_holds_nothing_back(desk: Desk) -> None:
    """What nobody has locked needs no time to think; the decision says what it would have been."""
    assert not desk.commands("reset", 60).refused
    assert desk.fired.decisions[0].no_reset_before == after(minutes=241)


def test_a_higher_stage_without_the_key_does_not_shorten_it() -> None:
    """What an earlier firing declared stays until a reset."""
    made = policy(no_reset_for=4 * HOUR)
    worse = graphs.stage("worse", 2, 1, cooldown=MINUTE)
    first, second = graphs.trigger("fall", 0, 0.10), graphs.trigger("deep", 0, 0.30)
    two = replace(
        made, stages=(worse, *made.stages), triggers=(first, second),
        conditions=(first.condition, second.condition, *made.conditions[1:]),
    )  # fmt: skip
    desk = Desk(two)
    (decision,) = desk.interpreter.tick(snapshot(after(minutes=10), book("600"))).decisions
    assert (decision.stage, decision.no_reset_before) == ("worse", None)
    assert desk.commands("reset", 60).refused


def test_a_breaker_stays_tripped_until_then() -> None:
    """It recovers once its cooldown and the time without a reset are over."""
    recovering = replace(AUTOMATIC, hold=HOUR)
    desk = Desk(policy(reset=recovering, breaker=True, no_reset_for=30 * MINUTE))
    states = []
    for minute in (10, 20, 31, 40):
        desk.tick(minute)
        states.append(desk.interpreter.status()[0].breaker)
    assert states == ["tripped", "tripped", "recovering", "recovering"]
