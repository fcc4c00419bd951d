"""A paused policy fires nothing new; what it has begun belongs to the firing and goes on (rule R1 of gitops)."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import Disabled
from killswitch.model.decision import Notice
from killswitch.model.instant import HOUR, MINUTE, to_micros
from killswitch.model.snapshot import AccountSnapshot, Event
from killswitch.model.store import FLAGS
from killswitch.planning.interpreter import Interpreter
from tests.graphs import close, policy_set, stage
from tests.notifying import NotifyingInterpreter
from tests.unit.planning.test_suspicion import Account
from tests.unit.planning.test_suspicion import policy as suspecting
from tests.unit.planning.test_unreachable_accounts import closed, down, failing, pair, tick, tick_with_notices, up
from tests.worlds import account, after, operator_event, position, snapshot


def pause(at: float, seconds: float | None = 3600.0, policy: str = "policy/test", id_: str = "pause-1") -> Event:
    until = None if seconds is None else after(seconds=at) + timedelta(seconds=seconds)
    return operator_event("pause", after(seconds=at), policy, id_, until=until)


def resume(at: float, policy: str = "policy/test", id_: str = "pause-2") -> Event:
    return operator_event("resume", after(seconds=at), policy, id_)


def geared(name: str = "main") -> AccountSnapshot:
    """Leverage of eight, at which `trim` fires."""
    held = [position("L", "long", "0", contracts="10", notional="800000", margin="50000")]
    return account("100000", held, name=name)


def watching() -> NotifyingInterpreter:
    """A policy that has seen one calm snapshot."""
    interpreter = NotifyingInterpreter(policy_set(failing()))
    tick(interpreter, 0, up("main"))
    return interpreter


def answer_of(notices: list[Notice], subject: str) -> Notice:
    (found,) = [notice for notice in notices if notice.subject == subject]
    return found


def texts(notices: list[Notice], begins: str) -> list[tuple[str, str]]:
    return [(notice.severity, notice.text) for notice in notices if notice.text.startswith(begins)]


def test_a_paused_policy_fires_nothing_and_the_first_tick_after_the_pause_fires_what_holds() -> None:
    """The command takes effect in its own tick, and so does the one that ends the pause."""
    interpreter = watching()
    assert tick(interpreter, 1, geared(), events=(pause(1),)) == []
    assert tick(interpreter, 2, geared()) == []
    (fired,) = tick(interpreter, 3, geared(), events=(resume(3),))
    assert fired.stage == "trim"


def test_a_pause_ends_at_its_time_with_a_notice() -> None:
    """At the end the policy fires again, in the tick that is at it."""
    interpreter = watching()
    tick(interpreter, 1, geared(), events=(pause(1, 10.0),))
    assert tick(interpreter, 10, geared()) == []
    fired, notices = tick_with_notices(interpreter, 11, geared())
    assert [decision.stage for decision in fired] == ["trim"]
    assert texts(notices, "the pause of test until") == [
        ("warning", "the pause of test until 2024-01-01T00:00:11Z, by operator-1, is over: test fires again from this "
                    "tick on")
    ]  # fmt: skip


def test_a_stage_that_would_fire_pages_once_and_says_who_keeps_it_from_firing() -> None:
    interpreter = watching()
    _, first = tick_with_notices(interpreter, 1, geared(), events=(pause(1),))
    _, second = tick_with_notices(interpreter, 2, geared())
    assert texts(first, "trim would fire") == [
        ("page", "trim would fire, and does not: test is paused until 2024-01-01T01:00:01Z by operator-1 (reviewed)")
    ]
    assert texts(second, "trim would fire") == []
    _, third = tick_with_notices(interpreter, 3, geared(), events=(resume(3),))
    assert [text.partition(", after")[0] for _, text in texts(third, "the pause of test no longer")] == [
        "the pause of test no longer keeps trim from firing"
    ]


def test_a_pause_is_a_warning_and_from_the_second_day_on_a_page_of_every_day() -> None:
    """Nobody forgets it."""
    interpreter = watching()
    day = 86_400
    begin = pause(1, 4 * day)
    seen = []
    for second in (1, 2, day, day + 2, day + 60, 2 * day + 2):
        events = (begin,) if second == 1 else ()
        _, notices = tick_with_notices(interpreter, second, up("main"), events=events)
        seen += [(second, each[0]) for each in texts(notices, "test is paused until") if "`ksctl resume" in each[1]]
    assert seen == [(1, "warning"), (day + 2, "page"), (2 * day + 2, "page")]


def test_a_pending_close_goes_on_during_a_pause() -> None:
    """R1: it fired before the pause; the account is closed on its first snapshot, and the stage latches."""
    interpreter = NotifyingInterpreter(policy_set(failing()))
    tick(interpreter, 0, up("main"))
    for second in (1, 2, 3):
        tick(interpreter, second, down("main"))
    tick(interpreter, 4, down("main"), events=(pause(4),))
    (decision,) = tick(interpreter, 60, up("main"))
    assert closed([decision]) == [("main", Decimal(5))]
    assert interpreter.status()[0].stage == "halve"


def test_a_pause_shortens_no_wait_of_a_pending_close() -> None:
    """Twenty minutes of failures keep its trigger true, so that it is not dropped after ten, as without the pause."""
    interpreter = NotifyingInterpreter(policy_set(failing()))
    tick(interpreter, 0, up("main"))
    for second in (1, 2, 3):
        tick(interpreter, second, down("main"))
    tick(interpreter, 4, down("main"), events=(pause(4),))
    for minute in range(1, 21):
        tick(interpreter, 60 * minute, down("main"))
    assert closed(tick(interpreter, 1201, up("main"))) == [("main", Decimal(5))]


def test_a_pending_close_during_a_pause_closes_only_what_it_waits_for() -> None:
    """`a` was closed when the stage fired; that its triggers still hold closes nothing new there."""
    interpreter = pair(cooldown=1_000_000)
    tick(interpreter, 5, up("a"), down("b"), events=(pause(5),))
    assert closed(tick(interpreter, 20, up("a"), up("b"))) == [("b", Decimal(5))]


def test_a_firing_that_could_not_latch_and_has_no_wait_goes_on_while_its_triggers_hold() -> None:
    """Without `close_within` nothing waits: the stage itself closes the rest, and nothing new on what it closed."""
    halve = stage("halve", 1, 0, 1, cooldown=HOUR, actions=(close("both", "0.5"),))
    policy = replace(failing("portfolio"), stages=(halve,))
    interpreter = NotifyingInterpreter(policy_set(policy))
    tick(interpreter, 0, up("a"), up("b"))
    found = [closed(tick(interpreter, second, up("a"), down("b"))) for second in (1, 2, 3)]
    assert found == [[], [], [("a", Decimal(5))]]
    tick(interpreter, 4, up("a"), down("b"), events=(pause(4),))
    assert closed(tick(interpreter, 5, geared("a"), geared("b"))) == [("b", Decimal(5))]


def test_latch_and_reset_go_on_during_a_pause() -> None:
    """The stage stays latched through the pause, and an operator's reset ends it as ever."""
    interpreter = watching()
    assert [decision.stage for decision in tick(interpreter, 1, geared())] == ["trim"]
    tick(interpreter, 2, up("main"), events=(pause(2),))
    assert interpreter.status()[0].stage == "trim"
    command = operator_event("reset", after(seconds=3))
    assert [decision.kind for decision in tick(interpreter, 3, up("main"), events=(command,))] == ["reset"]
    assert interpreter.status()[0].level == 0


def test_a_pause_outlives_a_restart() -> None:
    """It is stored with the tick; the next run fires nothing either."""
    first, policies = watching(), policy_set(failing())
    tick(first, 1, up("main"), events=(pause(1),))
    states, live = first.states(), first.live()
    second = Interpreter(policies)
    second.restore(states, lambda _policy, _scope, _since: (), live=live.get)
    assert FLAGS in live
    assert second.tick(snapshot(after(seconds=2), geared())).decisions == ()
    (machine,) = second.status()
    assert machine.paused is not None
    assert (machine.paused.policy, machine.paused.author) == ("test", "operator-1")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (pause(1, policy="policy/tset"), "nothing is paused: no policy is called tset, did you mean test?"),
        (pause(1, policy="policy/other"), "nothing is paused: no policy is called other. Known: test"),
        (pause(1, policy="account/main"), "nothing is paused: account/main is no policy, and only a policy is ever "
                                          "paused"),
        (pause(1, None), "test is not paused: a pause needs an end"),
        (pause(1, -5.0), "test is not paused: the pause was to end at 2023-12-31T23:59:56Z, before this tick"),
        (pause(1, 31 * 86_400.0), "test is not paused: a pause lasts at most 30 days; write `disabled` in the policy "
                                  "for longer"),
        (resume(1, id_="pause-1"), "test is not resumed: it is not paused. Paused now: none"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_carried_out_is_refused_and_changes_nothing(command: Event, why: str) -> None:
    interpreter = watching()
    fired, notices = tick_with_notices(interpreter, 1, geared(), events=(command,))
    refused = answer_of(notices, "pause-1")
    assert (refused.kind, refused.text) == ("nothing_selected", why)
    assert [decision.stage for decision in fired] == ["trim"]


def test_a_flag_of_the_same_name_is_no_pause_and_clearing_it_ends_none() -> None:
    """A flag that policies read, and a pause, do not meet, whatever an operator calls the flag."""
    interpreter = watching()
    flag = operator_event("flag", after(seconds=1), None, "flag-1", flag="pause", is_set=True)
    assert [d.stage for d in tick(interpreter, 1, geared(), events=(flag,))] == ["trim"]
    interpreter = watching()
    clear = operator_event("flag", after(seconds=2), None, "flag-2", flag="pause", is_set=False)
    tick(interpreter, 1, up("main"), events=(pause(1), flag))
    assert tick(interpreter, 2, geared(), events=(clear,)) == []


@pytest.mark.parametrize("how", ["paused", "disabled"])
def test_a_policy_that_fires_nothing_locks_nothing_on_suspicion(how: str) -> None:
    """A lock on suspicion would be something new, too. Without the pause the same fall locks."""

    def suspicions(observed: Account, events: tuple[Event, ...] = ()) -> list[str | None]:
        observed.until(9)
        observed.now = 10
        observed.tick(observed.read(events=events))
        observed.wallet -= 30_000
        return [decision.kind for _, decision in observed.until(20)]

    assert suspicions(Account()) == ["suspicion"]
    if how == "paused":
        assert suspicions(Account(), (pause(10),)) == []
    else:
        disabled = replace(suspecting(), disabled=Disabled("moving", to_micros(after(hours=1))))
        assert suspicions(Account(disabled)) == []


def test_pausing_again_replaces_the_end() -> None:
    interpreter = watching()
    tick(interpreter, 1, up("main"), events=(pause(1, 10.0),))
    _, notices = tick_with_notices(interpreter, 2, up("main"), events=(pause(2, 100.0, id_="pause-3"),))
    assert "instead of until 2024-01-01T00:00:11Z" in answer_of(notices, "pause-3").text
    assert tick(interpreter, 50, geared()) == []


def test_a_pause_is_of_one_policy_and_leaves_the_others() -> None:
    other = replace(failing(), policy="other")
    interpreter = NotifyingInterpreter(policy_set(failing(), other))
    tick(interpreter, 0, up("main"))
    fired = tick(interpreter, 1, geared(), events=(pause(1),))
    assert [decision.policy for decision in fired] == ["other"]


@pytest.mark.parametrize("name", ["test", "renamed"])
def test_a_pause_goes_on_through_a_reload_and_follows_a_renamed_policy(name: str) -> None:
    """R6: an edit of the policy ends no pause, and the pause of a policy moves with its state."""
    interpreter = watching()
    tick(interpreter, 1, up("main"), events=(pause(1),))
    edited = replace(failing(cooldown=MINUTE), policy=name, formerly=None if name == "test" else "test")
    ready = interpreter.prepare(policy_set(edited), interpreter.states(), lambda _policy, _scope, _since: ())
    interpreter.reload(ready)
    assert tick(interpreter, 2, geared()) == []
    (machine,) = interpreter.status()
    assert machine.paused is not None
    assert machine.paused.policy == machine.policy == name
