"""The states between a source and the set in force, row by row, and the rules of taking."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from killswitch.model.applied_set import ChangeClass
from killswitch.source.candidate import SourceAnswer
from killswitch.source.polling import candidate_mark
from killswitch.source.sync import (
    NOT_POLLED,
    answered,
    applied,
    arrival_accepted,
    commanded,
    declined,
    passed,
    restore_declined,
    restored,
    reviewed,
    shadowed,
)
from killswitch.source.sync_decision import condition, culprit_key, decide, next_poll
from killswitch.source.sync_state import (
    CommandVerb,
    Keep,
    Restore,
    SourceCommand,
    SourceRules,
    SourceState,
    Stay,
    Take,
    Wait,
    decode_source,
    encode_source,
)
from tests.unit.source.sync_cases import (
    DELAYED,
    HOUR,
    RULES,
    SECOND,
    approval,
    candidate,
    digest,
    in_force,
    problem,
    review,
)

START = restored(None, "desk", in_force("one", "c1"))
LOOSE: tuple[ChangeClass, ...] = ("LOOSENING", "NEITHER", "UNDECIDED")


def proposed(state: SourceState = START, text: str = "two", *commits: str, is_protected: bool = True) -> SourceState:
    """The state after a poll that proposes this."""
    found = candidate(text, *(commits or ("c2",)), is_protected=is_protected)
    return answered(state, SourceAnswer(candidate=found), 0)


def judged(state: SourceState, *args: object, text: str = "two", **named: object) -> SourceState:
    """The state after a review of the head against the set in force."""
    return reviewed(state, digest(text), state.in_force, review(*args, **named), 0)  # type: ignore[arg-type]  # passed on


def ordered(verb: CommandVerb, set_of: str | None = None, **named: object) -> SourceCommand:
    """An operator's command for four hours. `set_of`: the text of the set that it names."""
    given = {"id": f"{verb} {set_of}", "author": "olga", "reason": "it misfires", "at": 0, "lasts": 4 * HOUR}
    given |= {"digest": None if set_of is None else f"set of {set_of}"} | named
    return SourceCommand(verb=verb, **given)  # type: ignore[arg-type]  # its fields


def waits_for(state: SourceState, rules: SourceRules = RULES) -> str:
    """What the state waits for."""
    step = decide(state, rules)
    assert isinstance(step, Wait), step
    return step.what


STATES = {
    "head is in force": (proposed(START, "one", "c2"), ("synced", "healthy", None)),
    "waits for approvals": (judged(proposed(), "LOOSENING", needed=1), ("out of sync", "healthy", None)),
    "waits for arrival": (judged(proposed(), arrival=True), ("out of sync", "healthy", None)),
    "waits for a start": (
        applied(judged(proposed()), in_force("two", "c2"), ("account spare",)),
        ("out of sync", "healthy", None),
    ),
    "cannot be read": (
        answered(START, SourceAnswer(problems=(problem("KS8001", page=False),)), 0),
        ("out of sync", "degraded", "KS8001"),
    ),
    "does not compile": (
        judged(proposed(), problems=(problem("KS2001", page=False, file="desk.yaml"),)),
        ("out of sync", "degraded", "KS2001"),
    ),
    "signature": (
        answered(START, SourceAnswer(problems=(problem("KS8101"),)), 0),
        ("out of sync", "degraded + page", "KS8101"),
    ),
    "history": (
        proposed(applied(proposed(), in_force("two", "c2")), "three", "x3"),
        ("out of sync", "degraded + page", "KS8241"),
    ),
}


@pytest.mark.parametrize("row", STATES)
def test_the_table_of_states(row: str) -> None:
    """Sync and health are two things; the culprit is named wherever health is not healthy."""
    state, (sync, health, code) = STATES[row]
    found = condition(state, RULES, 0)
    assert (found.sync, found.health) == (sync, health)
    assert (None if found.culprit is None else found.culprit.code) == code


def test_h4_the_floor_is_the_store() -> None:
    """A start goes by what the store has in force, also where its own state is older; a second runner does the same."""
    older = restored(None, "desk", in_force("zero", "c0"))
    taken_over = restored(older, "desk", in_force("one", "c1", (approval("ann"),)))
    assert (taken_over.in_force, taken_over.commit, taken_over.floor) == (digest("one"), "c1", "c1")
    assert taken_over.spent == ("by ann",)
    history = answered(taken_over, SourceAnswer(candidate=replace(candidate("zero", "c0"), steps=())), 0)
    assert [each.code for each in history.problems] == ["KS8241"]


def test_nothing_is_synced_before_the_first_poll_of_a_run() -> None:
    """What was known before a restart is not known now."""
    again = restored(STATES["head is in force"][0], "desk", in_force("one", "c1"))
    found = condition(again, RULES, 0)
    assert (found.sync, found.wait) == ("out of sync", Wait("poll", NOT_POLLED))


@pytest.mark.parametrize("verdict", ["TIGHTENING", "EQUIVALENT"])
def test_a_tightening_is_taken_at_the_next_tick(verdict: ChangeClass) -> None:
    """Without approvals, and without the delay of a loosening."""
    assert decide(judged(proposed(), verdict), DELAYED) == Take(digest("two"), verdict)


@pytest.mark.parametrize("verdict", LOOSE)
def test_a1_whatever_is_not_proved_a_tightening_waits_for_approvals(verdict: ChangeClass) -> None:
    """N different persons with N different keys; none configured is not approved."""
    assert waits_for(judged(proposed(), verdict, needed=0)) == "approvals"
    assert waits_for(judged(proposed(), verdict, approval("ann"), needed=2)) == "approvals"
    twice = (approval("ann"), approval("ann", "SHA256:other", "second"))
    assert waits_for(judged(proposed(), verdict, *twice, needed=2)) == "approvals"
    one_key = (approval("ann", "SHA256:k"), approval("bob", "SHA256:k"))
    assert waits_for(judged(proposed(), verdict, *one_key, needed=2)) == "approvals"
    both = (approval("ann"), approval("bob"))
    assert decide(judged(proposed(), verdict, *both, needed=2), RULES) == Take(digest("two"), verdict, both)


def test_a6_an_approval_is_spent_by_the_step_that_it_lets_through() -> None:
    """Loosened, tightened, and loosened again in the same way: the second time needs another approval."""
    ok = approval("ann")
    state = applied(judged(proposed(), "LOOSENING", ok, needed=1), in_force("two", "c2", (ok,)))
    state = applied(judged(proposed(state, "one", "c3"), text="one"), in_force("one", "c3"))
    state = proposed(state, "two", "c4")
    assert waits_for(judged(state, "LOOSENING", ok, needed=1)) == "approvals"
    fresh = approval("ann", id_="given later")
    assert isinstance(decide(judged(state, "LOOSENING", fresh, needed=1), RULES), Take)


def test_a6_an_approval_of_a_set_that_was_in_force_is_spent_although_the_state_is_lost() -> None:
    """The store has the sets with their approvals, whatever became of the state of the source."""
    ok = approval("ann")
    lost = restored(None, "desk", in_force("one", "c1"), [ok.id])
    assert waits_for(judged(proposed(lost, "two", "c2"), "LOOSENING", ok, needed=1)) == "approvals"
    untouched = restored(None, "desk", in_force("one", "c1"))
    assert isinstance(decide(judged(proposed(untouched, "two", "c2"), "LOOSENING", ok, needed=1), RULES), Take)


def test_a8_what_fires_on_arrival_waits_for_one_approver() -> None:
    """Also of a tightening; the text ends with the command that closes now."""
    state = judged(proposed(), arrival=True)
    step = decide(state, RULES)
    assert isinstance(step, Wait)
    assert (step.what, step.text.endswith("`ksctl close` closes now")) == ("arrival", True)
    ok = approval("ann")
    assert decide(judged(state, arrival=True, arrival_approvals=(ok,)), RULES) == Take(
        digest("two"), "TIGHTENING", (ok,)
    )


def test_a8_an_operators_reload_takes_what_nobody_can_approve() -> None:
    """An unprotected source has no approvers; a protected one waits for them, whoever reloads."""
    state = judged(proposed(), arrival=True)
    assert waits_for(arrival_accepted(state, "olga")) == "arrival"
    head = state.head
    assert head is not None
    unprotected = replace(state, head=replace(head, is_protected=False))
    step = decide(unprotected, RULES)
    assert isinstance(step, Wait)
    assert "waits for an operator's `ksctl reload`" in step.text
    assert isinstance(decide(arrival_accepted(unprotected, "olga"), RULES), Take)


def test_r7_a_pending_close_holds_the_reload() -> None:
    """It is looked at again each minute, and taken once the close is over."""
    state = judged(proposed(), held_by_close=("decision 7",))
    assert waits_for(state) == "close"
    assert waits_for(passed(state, 60 * SECOND)) == "review"
    assert isinstance(decide(judged(state), RULES), Take)


def test_self_restraint_is_a_duration_of_the_runner() -> None:
    """It counts once it is approved, goes on after a restart, and is over after exactly that long."""
    state = passed(judged(proposed(), "LOOSENING", needed=1), 9 * HOUR)
    state = judged(state, "LOOSENING", approval("ann"), needed=1)
    state = passed(state, 3 * HOUR)
    stored = decode_source(encode_source(state))
    state = proposed(restored(stored, "desk", in_force("one", "c1")))
    assert decide(state, DELAYED) == Wait("delay", "a loosening takes effect in 60 min", HOUR)
    state = passed(state, HOUR - 1)
    assert waits_for(state, DELAYED) == "delay"
    state = passed(state, 1)
    assert waits_for(state, DELAYED) == "review"
    assert isinstance(decide(judged(state, "LOOSENING", approval("ann"), needed=1), DELAYED), Take)


@pytest.mark.parametrize("years", [-1, 1])
def test_a_clock_that_is_set_by_a_year_shortens_no_delay(years: int) -> None:
    """Dates decide nothing: only measured time does."""
    year = years * 365 * 24 * HOUR
    state = judged(proposed(), "LOOSENING", approval("ann"), needed=1)
    for at in (0, year, 2 * year):
        state = answered(state, SourceAnswer(), at)
        state = passed(state, SECOND)
        assert waits_for(state, DELAYED) == "delay"
    assert passed(state, -HOUR) == state


def test_an_approval_that_ends_begins_the_delay_again() -> None:
    """The next review no longer counts it."""
    state = passed(judged(proposed(), "LOOSENING", approval("ann"), needed=1), 3 * HOUR)
    state = judged(state, "LOOSENING", needed=1)
    state = judged(state, "LOOSENING", approval("bob"), needed=1)
    assert decide(state, DELAYED) == Wait("delay", "a loosening takes effect in 4 h", 4 * HOUR)


def test_a_later_commit_voids_what_has_waited() -> None:
    """A4, P6: the newest head only, judged from the beginning; the same folder under another commit has waited."""
    state = passed(judged(proposed(), "LOOSENING", approval("ann"), needed=1), 3 * HOUR)
    same = judged(proposed(state, "two", "c2", "c3"), "LOOSENING", approval("ann"), needed=1)
    assert decide(same, DELAYED) == Wait("delay", "a loosening takes effect in 60 min", HOUR)
    other = proposed(state, "three", "c2", "c3")
    assert waits_for(other) == "review"
    assert waits_for(judged(other, "LOOSENING", needed=1, text="three")) == "approvals"


def test_a_review_of_another_head_or_base_counts_for_nothing() -> None:
    """It was under way while the head or the set in force changed."""
    state = proposed()
    assert reviewed(state, digest("three"), state.in_force, review(), 0) == state
    assert reviewed(state, digest("two"), digest("zero"), review(), 0) == state
    rolled = applied(state, in_force("zero", "c0", operator="olga"))
    assert reviewed(rolled, digest("two"), digest("one"), review(), 0) == rolled
    assert waits_for(rolled) == "poll"


def test_an_old_review_is_repeated_before_its_set_is_taken() -> None:
    """What would fire on arrival changes with the book."""
    state = judged(proposed())
    assert isinstance(decide(passed(state, 60 * SECOND - 1), RULES), Take)
    assert waits_for(passed(state, 60 * SECOND)) == "review"


def test_p6_a_failed_poll_is_repeated_after_1_s_to_5_min_with_jitter() -> None:
    """Doubled each time; the share of the pause that is random is passed in."""
    state, pauses = START, []
    for _ in range(12):
        state = answered(state, SourceAnswer(problems=(problem("KS8001", page=False),)), 0)
        pauses.append(next_poll(state, RULES, 1.0) // SECOND)
        assert next_poll(state, RULES, 0.0) == max(pauses[-1] * SECOND // 2, SECOND)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert next_poll(answered(state, SourceAnswer(), 0), RULES, 0.5) == 30 * SECOND


def test_w5_a_bad_commit_is_no_hot_loop_and_one_culprit() -> None:
    """Read again and again, it is judged at most as often as the source is polled, and is on record once."""
    state = START
    for _ in range(1000):
        state = answered(state, SourceAnswer(problems=(problem("KS8101"),)), 0)
        assert next_poll(state, RULES, 0.0) >= 30 * SECOND
    assert [(each.code, each.commit, each.principal) for each in state.refused] == [("KS8101", "c9", "sam")]
    other = answered(state, SourceAnswer(problems=(problem("KS8101", commit="c10"),)), 0)
    assert len(other.refused) == 2
    assert culprit_key(state.problems[0]) != culprit_key(other.problems[0])


def test_w5_a_set_that_does_not_compile_names_file_and_commit_and_is_not_reviewed_in_a_loop() -> None:
    """Every poll finds it again; it is compared again after five minutes at the earliest."""
    state = judged(proposed(), problems=(problem("KS2001", page=False, commit=None, file="desk.yaml"),))
    for _ in range(9):
        state = proposed(passed(state, 30 * SECOND))
        step = decide(state, RULES)
        assert isinstance(step, Keep)
        assert step.problems[0].file == "desk.yaml"
    assert waits_for(passed(state, 30 * SECOND)) == "review"
    assert [(each.code, each.commit) for each in state.refused] == [("KS2001", "c2")]


@pytest.mark.parametrize(
    "bad",
    [
        SourceAnswer(problems=(problem("KS8001", page=False),)),
        SourceAnswer(problems=(problem("KS8101"),)),
        SourceAnswer(progress="not yet"),
        SourceAnswer(candidate=replace(candidate("none", "c2"), files=())),
        SourceAnswer(candidate=candidate("broken", "c2")),
        SourceAnswer(candidate=replace(candidate("forked", "x1"), steps=())),
    ],
    ids=["unreadable", "forged", "not yet", "emptied", "broken", "rewritten"],
)
def test_after_a_bad_input_the_next_honest_head_is_taken_without_a_hand(bad: SourceAnswer) -> None:
    """Whatever it was, the set in force stays, and nothing of it is held against what follows."""
    state = answered(START, bad, 0)
    if bad.candidate is not None:
        broken = review(problems=(problem("KS2001", page=False),))
        state = reviewed(state, digest("broken"), state.in_force, broken, 0)
    assert not isinstance(decide(state, RULES), Take | Stay)
    assert isinstance(decide(judged(proposed(state, "two", "c2", "c3")), RULES), Take)


def test_an_emptied_source_removes_nothing() -> None:
    """Even one that is signed: it is a problem that names its commit."""
    emptied = replace(candidate("none", "c2"), files=())
    state = answered(START, SourceAnswer(candidate=emptied), 0)
    assert [(each.code, each.commit) for each in state.problems] == [("KS8240", "c2")]
    assert isinstance(decide(state, RULES), Keep)


def test_h6_age_degrades_health_and_changes_nothing_that_runs() -> None:
    """The age of the last answer and of the newest commit; a frozen host answers as ever."""
    rules = SourceRules(poll=30 * SECOND, stale_after=24 * HOUR, frozen_after=48 * HOUR)
    state = answered(proposed(START, "one", "c2"), SourceAnswer(), 0)
    assert condition(state, rules, 24 * HOUR).health == "healthy"
    stale = condition(state, rules, 24 * HOUR + 1)
    assert (stale.sync, stale.health, stale.answer_age) == ("synced", "degraded", 24 * HOUR + 1)
    counted = condition(passed(state, 25 * HOUR), rules, 0)
    assert (counted.health, counted.answer_age) == ("degraded", 25 * HOUR)
    frozen = condition(replace(state, newest_commit_at=-48 * HOUR - 1), rules, 0)
    assert (frozen.health, frozen.commit_age) == ("degraded", 48 * HOUR + 1)
    assert isinstance(decide(passed(state, 25 * HOUR), rules), Stay)


def test_c4_an_unprotected_source_says_so_at_all_times() -> None:
    """Its loosening needs no approval, which nobody could give, but waits as declared."""
    state = judged(proposed(START, "two", is_protected=False), "LOOSENING")
    assert waits_for(state, DELAYED) == "delay"
    assert isinstance(decide(state, RULES), Take)
    for each in (state, applied(state, in_force("two"))):
        assert not condition(each, RULES, 0).is_protected


def test_rollback_is_at_once_and_remembers_the_bad_commit() -> None:
    """Sync is off meanwhile and visibly so; afterwards the bad commit is not taken again, and the next one is."""
    known = [in_force("one", "c1"), in_force("two", "c2")]
    state = applied(judged(proposed()), known[1])
    state = commanded(state, ordered("rollback", "one"), known)
    step = decide(state, RULES)
    assert isinstance(step, Restore)
    assert step.policy_digest == "set of one"
    state = applied(state, in_force("one", "c1", operator="olga"))
    assert (waits_for(state), condition(state, RULES, 0).sync) == ("operator", "out of sync")
    state = proposed(passed(state, 4 * HOUR), "two", "c2")
    assert state.hold is None
    assert (waits_for(state), waits_for(judged(state))) == ("operator", "operator")
    fixed = judged(proposed(state, "three", "c2", "c3"), text="three")
    assert isinstance(decide(fixed, RULES), Take)
    forgotten = commanded(state, ordered("resume", forget="c2"), known)
    assert isinstance(decide(judged(forgotten), RULES), Take)


def test_after_a_rollback_no_history_without_the_bad_commit_is_taken() -> None:
    """H2, H4: the floor stays the newest commit that was in force, or a host could take the rollback for a rewrite."""
    known = [in_force("one", "c1"), in_force("two", "c2")]
    state = commanded(applied(judged(proposed()), known[1]), ordered("rollback", "one"), known)
    state = passed(applied(state, in_force("one", "c1", operator="olga")), 4 * HOUR)
    forked = proposed(state, "three", "x2")
    assert [each.code for each in forked.problems] == ["KS8241"]


def test_a_rollback_that_the_runner_refuses_leaves_the_source_suspended() -> None:
    """On record; nothing is tried in a loop."""
    known = [in_force("one", "c1"), in_force("two", "c2")]
    state = commanded(applied(judged(proposed()), known[1]), ordered("rollback", "one"), known)
    state = restore_declined(state, "a pending close would be dropped", 0)
    assert waits_for(state) == "operator"
    assert state.refused[-1].text == "a pending close would be dropped"


@pytest.mark.parametrize("verb", ["pause", "pin"])
def test_a_suspended_source_takes_nothing_until_its_end(verb: CommandVerb) -> None:
    """It is never shown as synced, says by whom, why and for how long, and goes on by itself at its end."""
    state = judged(commanded(proposed(), ordered(verb), []))
    found = condition(state, RULES, 0)
    assert (found.sync, found.hold is not None) == ("out of sync", True)
    assert found.wait == Wait("operator", f"{verb} by olga: it misfires", 4 * HOUR)
    state = passed(state, 4 * HOUR - 1)
    assert waits_for(state) == "operator"
    assert waits_for(passed(state, 1)) == "review"
    assert waits_for(commanded(state, ordered("resume"), [])) == "review"


def test_pin_puts_a_set_that_was_in_force_in_force_and_remembers_nothing_as_bad() -> None:
    """Without a set it keeps the one in force."""
    known = [in_force("one", "c1"), in_force("two", "c2")]
    state = commanded(applied(judged(proposed()), known[1]), ordered("pin", "one"), known)
    assert isinstance(decide(state, RULES), Restore)
    assert state.bad == ()


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (ordered("rollback", "none"), "no set with the digest"),
        (ordered("rollback", "one"), "that set is in force"),
        (ordered("pin", "none"), "no set with the digest"),
        (ordered("pause", lasts=0), "needs an end"),
        (ordered("resume"), "not suspended"),
        (ordered("resume", forget="c7"), "was rolled back"),
        (ordered("anchor", "one"), "lacks its approvals"),
    ],
)
def test_a_command_that_is_refused_changes_nothing_and_is_answered(command: SourceCommand, text: str) -> None:
    """The result is on record."""
    state = commanded(START, command, [in_force("one", "c1")])
    assert replace(state, results=()) == START
    assert not state.results[0].is_accepted
    assert text in state.results[0].text


def test_a_command_counts_once() -> None:
    """It is read again after a restart."""
    state = commanded(START, ordered("pause"), [])
    later = passed(state, HOUR)
    assert commanded(later, ordered("pause"), []) == later


def test_h7_a_moved_anchor_is_the_one_way_forward_after_a_rewrite() -> None:
    """With approvals: the floor is gone, the set in force stays the base of the review."""
    state = applied(judged(proposed()), in_force("two", "c2"))
    rewritten = replace(candidate("three", "x3"), steps=())
    assert isinstance(decide(answered(state, SourceAnswer(candidate=rewritten), 0), RULES), Keep)
    command = ordered("anchor", digest="x2")
    state = answered(commanded(state, command, [], is_approved=True), SourceAnswer(candidate=rewritten), 0)
    assert (state.anchor, state.in_force, waits_for(state)) == ("x2", digest("two"), "review")
    assert isinstance(decide(judged(state, text="three"), RULES), Take)


def test_a_refusal_of_the_runner_is_no_end() -> None:
    """What a start refuses, a reload refuses; the set is reviewed again later, and another one is judged by itself."""
    state = declined(judged(proposed()), digest("two"), (problem("KS8245", page=False),), 0)
    assert condition(state, RULES, 0).health == "degraded"
    assert waits_for(passed(state, 300 * SECOND)) == "review"
    assert isinstance(decide(judged(proposed(state, "three", "c2", "c3"), text="three"), RULES), Take)


def test_a_loosening_may_have_to_be_in_shadow_first() -> None:
    """Where nothing has it in shadow, it waits: a missing shadow is no quiet one."""
    rules = SourceRules(poll=30 * SECOND, shadow_before=HOUR)
    state = judged(proposed(), "LOOSENING", approval("ann"), needed=1)
    assert decide(state, rules) == Wait("shadow", "it is evaluated in shadow first", HOUR)
    assert waits_for(shadowed(state, digest("two"), HOUR - 1), rules) == "shadow"
    assert isinstance(decide(shadowed(state, digest("two"), HOUR), rules), Take)


def test_a_head_that_is_taken_back_waits_no_longer() -> None:
    """The source proposes the set in force again: what waited for approvals is gone, and the source is synced."""
    state = answered(judged(proposed(), "LOOSENING", needed=1), SourceAnswer(is_in_force=True), 0)
    assert condition(state, RULES, 0).sync == "synced"
    assert waits_for(proposed(state)) == "review"


def test_a_commit_of_another_source_is_no_floor() -> None:
    """A run that was started with a folder, and now follows a repository: its history begins at the anchor."""
    before = in_force("one", "c1")
    state = restored(None, "other", before)
    assert (state.in_force, state.commit, state.floor) == (digest("one"), None, None)


def test_the_mark_of_a_candidate_changes_with_its_commit_and_statements() -> None:
    """So that a new approval is reviewed, and an unchanged head is not sent again."""
    one = candidate("two", "c2")
    marks = {candidate_mark(each) for each in (one, replace(one, statements=(b"s",)), replace(one, commit="c3"))}
    assert len(marks) == 3


def test_a_review_of_an_earlier_run_takes_nothing() -> None:
    """Time is counted by the runner, so that the one of a stopped runner is unknown: an approval may have ended, and
    what would fire on arrival may be another. A8, A6."""
    state = reviewed(proposed(), digest("two"), digest("one"), review("LOOSENING", approval("ann"), needed=1), 0)
    assert isinstance(decide(state, RULES), Take)
    again = restored(decode_source(encode_source(state)), "desk", in_force("one", "c1"))
    assert waits_for(proposed(again)) == "review"


def test_an_old_command_is_never_obeyed_again_however_many_follow() -> None:
    """The store keeps the newest command of each verb: a `resume` of last month must not end the pause of today."""

    def command(number: int, verb: CommandVerb) -> SourceCommand:
        return SourceCommand(id=f"id{number}", verb=verb, author="olga", reason="r", at=number, lasts=HOUR)

    state = commanded(START, command(0, "pause"), ())
    state = commanded(state, command(1, "resume"), ())
    for number in range(2, 60):
        state = commanded(state, command(number, "pause"), ())
    assert commanded(state, command(1, "resume"), ()) == state
    assert state.hold is not None
