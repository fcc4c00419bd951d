"""What a board shows of a status: what is worst, in which order, and what is unknown; and the same in a terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from rich.console import Console

from killswitch.cli import ksctl
from killswitch.cli.live.top import nearest, screen
from killswitch.incident.record.results import Result
from killswitch.model.decision import Decision
from killswitch.model.flags import Flag
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import RouteCount
from killswitch.operations.board import Board, BoardSilence, board_of, read_board
from killswitch.operations.commands import operator_event
from killswitch.operations.lifting import after_resets
from killswitch.operations.notifying import HeldMessage, SilenceView
from killswitch.operations.preview import Preview
from killswitch.operations.status import LockView, OpenClosing, RunnerState, StoreStatus
from killswitch.operations.waiting_approvals import WaitingApproval
from killswitch.server.board.parts import section_html
from killswitch.server.board.previews import command_preview
from killswitch.store.sqlite import open_store
from killswitch.watcher.watch import SwitchView
from tests.graphs import policy_set
from tests.runner_world import crash_policy
from tests.unit.planning.recovery.plans import planned
from tests.unit.server.boards import AT, account, machine, open_page, put_source, put_view, run_view, trigger, way_back
from tests.unit.server.conftest import Served

ALIVE = RunnerState("alive", "host:1", 1, 1, AT, "it holds the lease")
FIRED: dict[str, Any] = {"level": 3, "stage": "close-everything", "fired_at": AT, "decision": "ab" * 10}


def shown(*machines: Any, runner: RunnerState = ALIVE, status: dict[str, Any] | None = None, **view: Any) -> Board:
    """The board of a run with these policies on scopes."""
    found = run_view(AT, **({"machines": machines or (machine(),)} | view))
    fields: dict[str, Any] = {"locks": (), "closings": (), "pending": (), "notices": ()} | (status or {})
    return board_of(StoreStatus(now=AT, runner=runner, view=found, view_problem=None, **fields))


def test_a_quiet_book_is_quiet_and_says_how_near_it_is() -> None:
    board = shown(machine("account/main", trigger("fall", 0.01, 0.04)))
    assert (board.headline.tone, board.headline.text) == ("calm", "All quiet")
    assert "nearest 25%" in board.headline.detail
    (bar,) = board.scopes[0].bars
    assert (bar.state, bar.value, bar.threshold, bar.reached) == ("clear", "1.00%", "≥ 4.0%", 0.25)


def test_a_stage_that_fired_is_the_headline_and_the_first_scope() -> None:
    board = shown(machine("account/aa"), machine("account/main", **FIRED))
    assert board.headline.text == "close-everything fired on account/main"
    assert [each.scope for each in board.scopes] == ["account/main", "account/aa"]
    assert board.scopes[0].stage == "close-everything, level 3"


def test_a_runner_that_does_not_tick_is_worse_than_what_it_last_saw() -> None:
    gone = RunnerState("gone", None, None, None, None, "no runner holds the lease")
    board = shown(machine("account/main", **FIRED), runner=gone)
    assert board.headline.text == "No runner watches"
    assert board.troubles[0].tone == "alarm"


def test_a_stage_that_is_only_observed_is_no_alarm() -> None:
    board = shown(machine("account/main", mode="observe", **FIRED))
    assert board.scopes[0].tone == "warning"
    assert board.scopes[0].stage == "close-everything, level 3 (observed only)"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (trigger("fall", 0.05, 0.04, truth=True), "A trigger is true"),
        (trigger("fall", 0.05, 0.04, truth=None), "A trigger is unknown"),
        (trigger("fall", 0.036, 0.04), "fall on account/main at 90%"),
    ],
)
def test_the_headline_names_what_comes_nearest_to_a_firing(found: Any, text: str) -> None:
    assert shown(machine("account/main", found)).headline.text == text


def test_an_unknown_trigger_has_no_bar_because_none_would_be_true() -> None:
    (bar,) = shown(machine("account/main", trigger("fall", 0.05, 0.04, truth=None))).scopes[0].bars
    assert (bar.state, bar.reached) == ("unknown", None)


def test_an_account_that_cannot_be_read_is_named_with_its_reason() -> None:
    board = shown(accounts=(account(), account("hedge", quality="stale", reason="no answer for 20 s")))
    assert board.headline.text == "An account cannot be read"
    assert "hedge: stale: no answer for 20 s" in board.headline.detail
    assert [(each.read, each.of, each.tone) for each in board.venues] == [(1, 2, "warning")]


def test_many_accounts_show_those_with_something_wrong_only() -> None:
    many = [account(f"a{number}") for number in range(60)]
    board = shown(accounts=(*many, account("hedge", quality="stale", reason="x")))
    assert [each.account for each in board.venues[0].accounts] == ["hedge"]


def test_a_pause_is_shown_where_it_disarms() -> None:
    pause = Flag("pause", "policy/drawdown", AT, "ann", "maintenance", AT + timedelta(hours=1))
    scope = shown(machine("account/main", paused=pause)).scopes[0]
    assert scope.tone == "warning"
    assert "PAUSED until 2026-11-25T04:00:00Z by ann" in scope.note


def test_a_scope_on_its_way_back_says_so_because_its_stage_is_over_and_its_lock_lifted() -> None:
    """A reset ends both, and the gate still refuses what is above the step."""
    progress = "step 0 of 1, 25% of the limits: 5s of 5s clean; 1 approval missing for the next step"
    first, other = shown(machine("account/main"), machine("account/other"), recoveries=(way_back(),)).scopes
    assert (first.note, other.note) == (f"way back: {progress}", "")
    assert "bots may trade" not in section_html("locks", shown(machine("account/main"), recoveries=(way_back(),)))
    assert "bots may trade" in section_html("locks", shown())


def test_every_way_back_is_listed_below_the_locks_with_its_step_and_what_it_waits_for() -> None:
    """In the order of the run, also of a scope that has no policy any more; the page escapes what a policy wrote."""
    waiting = replace(way_back("account/hedge"), progress="waits for a reset; <b>nothing</b> is opened\u0007")
    board = shown(machine("account/main"), recoveries=(way_back(), waiting))
    assert board.ways_back == (
        ("account/main", "step 0 of 1, 25% of the limits: 5s of 5s clean; 1 approval missing for the next step"),
        ("account/hedge", "waits for a reset; <b>nothing</b> is opened\\x07"),
    )
    html = section_html("locks", board)
    items = html.split("<li")[1:]
    assert [item.count("on its way back") for item in items] == [1, 1]
    assert "account/main" in items[0]
    assert "step 0 of 1, 25% of the limits" in items[0]
    assert "account/hedge" in items[1]
    assert "&lt;b&gt;nothing&lt;/b&gt; is opened" in items[1]
    assert "on its way back" not in section_html("locks", shown())


def test_a_firing_that_nobody_has_acknowledged_is_shown_with_its_number() -> None:
    status = StoreStatus(
        now=AT, runner=ALIVE, view=run_view(AT), view_problem=None, locks=(), closings=(), pending=(), notices=()
    )
    (found,) = board_of(status, [open_page(7, "ab" * 10)]).firings
    assert (found.decision, found.number, found.title) == ("ab" * 10, 7, "close-everything fired")
    assert "NOT ACKNOWLEDGED: close-everything fired" in drawn(board_of(status, [open_page(7, "ab" * 10)]))


def test_what_waits_for_a_signature_is_shown_with_who_has_given_one(store_path: Path) -> None:
    """In the terminal as on the page."""
    put_source(store_path)
    ways_back = (way_back(approvals_missing=1, approved=("ann@example.com",)),)
    put_view(store_path, run_view(AT, recoveries=ways_back))
    store = open_store(str(store_path), read_only=True)
    board = read_board(store, AT, AT, None)
    store.close()
    (found,) = board.approvals
    assert (found.scope, found.missing, found.given) == ("account/main", 1, ("ann@example.com",))
    assert "WAITS FOR AN APPROVAL: step 1 of 1 of the way back of drawdown on account/main (1 missing" in drawn(board)


def test_what_is_silenced_held_or_not_delivered_is_shown_the_worst_first() -> None:
    """With who has silenced it and until when, and why a message waits."""
    silence = SilenceView("s1", "ann", "a drill", 'level="warning"', AT + timedelta(hours=1), None, is_document=False)
    held = HeldMessage("desk", "stream/main", "the stream was cut", "warning", "silenced", "s1 of ann", AT)
    counts = (
        RouteCount("r", "file:a", 0, 9, 0, None, None), RouteCount("r", "slack:b", 2, 0, 0, to_micros(AT), "503"),
        RouteCount("r", "smtp:c", 0, 0, 1, None, None), RouteCount("other", "slack:b", 1, 0, 0, None, None),
    )  # fmt: skip
    board = shown(status={"silences": (silence,), "held": (held,), "notifications": counts})
    assert [(each.target, each.tone, each.pending, each.given_up) for each in board.targets] == [
        ("smtp:c", "alarm", 0, 1), ("slack:b", "warning", 3, 0),
    ]  # fmt: skip
    assert (board.targets[1].oldest, board.targets[1].why) == (AT, "503")
    (silenced,) = board.silences
    assert (silenced.author, silenced.reason, silenced.until) == ("ann", "a drill", AT + timedelta(hours=1))
    assert board.held[0].why == "silenced by s1 of ann"
    html = section_html("messages", board)
    for words in ("slack:b", "3 wait", "1 given up", "a drill", "by ann", "the stream was cut", "2026-11-25T04:00:00Z"):
        assert words in html
    assert "nothing is silenced" in section_html("messages", shown())


def switch(phase: Any, checked_at: datetime, age: float = 12.0) -> SwitchView:
    return SwitchView(
        name="maker-alive", watches="heartbeat", beats="maker", accounts=("main",), on_silence="close", phase=phase,
        checked_at=checked_at, timeout=60.0, check_every=5.0, age=age, progress=5, fires_in=60 - age, ways=(),
    )  # fmt: skip


def test_a_switch_counts_down_to_the_moment_at_which_it_may_fire() -> None:
    (found,) = shown(status={"switches": (switch("armed", AT),)}).switches
    assert (found.tone, found.until) == ("calm", AT + timedelta(seconds=48))
    (late,) = shown(status={"switches": (switch("armed", AT, 40.0),)}).switches
    assert late.tone == "near"


def test_a_switch_that_nobody_checks_is_unknown_and_counts_nothing_down() -> None:
    (found,) = shown(status={"switches": (switch("armed", AT - timedelta(seconds=26)),)}).switches
    assert (found.tone, found.until) == ("alarm", None)
    assert found.state.startswith("UNKNOWN, was armed")


# The terminal


def drawn(board: Board, since: float = 0.0, height: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=140, force_terminal=False)
    console.print(screen(board, since, height, 140, ""))
    text = console.file.getvalue()  # type: ignore[attr-defined] # a StringIO
    return str(text)


def test_the_terminal_shows_the_worst_first_with_its_word() -> None:
    text = drawn(shown(machine("account/aa"), machine("account/main", **FIRED)))
    lines = [line for line in text.splitlines() if "account/" in line]
    assert "ALARM" in lines[0]
    assert "close-everything fired on account/main" in lines[0]
    assert lines[1].index("account/main") < lines[1].index("close-everything")


def test_the_terminal_looks_lost_when_the_data_grow_older_than_two_intervals() -> None:
    """Although nobody has read anything meanwhile."""
    board = shown()
    assert "LOST" not in drawn(board, 2.0)
    assert "LOST: the data are 3 s old" in drawn(board, 3.2)


def test_the_terminal_counts_the_scopes_for_which_it_has_no_room() -> None:
    text = drawn(shown(*(machine(f"account/a{number:03}") for number in range(100))), height=30)
    assert len(text.splitlines()) <= 30
    assert "further scopes" in text


def test_the_trigger_that_is_shown_is_the_true_one_before_the_nearest() -> None:
    near, true = trigger("near", 0.039, 0.04), trigger("true", 0.05, 0.09, truth=True)
    found = nearest(shown(machine("account/main", near, true)).scopes[0])
    assert found is not None
    assert found.name == "true"


def full() -> Board:
    """A board on which every list has something."""
    paused = Flag("pause", "policy/drawdown", AT, "ann", "maintenance", AT + timedelta(hours=1))
    lock = LockView(
        "f", "account/main", locked=True, mode="reduce_only", reason="fell by 10%", stage=None,
        until=AT + timedelta(hours=1), alive_until=None, ordered=True, stale=False,
    )  # fmt: skip
    closing = OpenClosing("ab" * 10, "account/main", "main", Result("closing", (), (), (), None, (), 0, None, None))
    status = StoreStatus(
        now=AT, runner=ALIVE, view_problem=None, notices=(), locks=(lock,), closings=(closing,),
        view=run_view(
            AT, accounts=(account(), account("hedge", quality="stale", reason="no answer for 20 s")),
            machines=(machine("account/main", **FIRED), machine("account/hedge", paused=paused)),
            recoveries=(way_back("account/hedge"),), problems=("the stream was cut",),
        ),
        pending=(operator_event("halt", "portfolio", "ben", "x", AT),),
        notifications=(RouteCount("r", "slack:b", 2, 0, 0, to_micros(AT), "503"),),
        switches=(switch("armed", AT),),
        silences=(SilenceView("s1", "ann", "a drill", "level=1", AT + timedelta(hours=1), None, is_document=False),),
        held=(HeldMessage("desk", "near/x", "leverage is near", "warning", "silenced", "s1", AT),),
    )  # fmt: skip
    waiting = WaitingApproval("k", "reset", "account/main", "a reset of stop", (), 1, ("cal",), (), "c", None)
    return board_of(status, [open_page(7, "ab" * 10)], [waiting])


def test_the_terminal_shows_everything_that_the_page_shows() -> None:
    """Each sentence of the page, in the same order of what a person must know first."""
    text = drawn(full())
    found = [
        "close-everything fired on account/main", "NOT ACKNOWLEDGED: close-everything fired on account/main",
        "WAITS FOR AN APPROVAL: a reset of stop (1 missing, given by cal)",
        "CLOSING account/main on main: unknown of 0",
        "WARNING: the stream was cut", "PENDING: halt portfolio by ben",
        "close-everything, level 3", "account/hedge: PAUSED until 2026-11-25T04:00:00Z by ann",
        "switch maker-alive: armed, fires in 48s; heartbeat maker",
        "lock account/main: reduce only, until 2026-11-25T04:00:00Z: fell",
        "way back account/hedge: step 0 of 1", "venue paper: 1 of 2 read", "hedge: stale: no answer for 20 s",
        "messages to slack:b: 2 waiting: 503", "silenced: level=1 until 2026-11-25T04:00:00Z by ann: a drill",
        "held: leverage is near for desk", "set in force: sha256:0123456789ab", "runner: pid 1",
    ]  # fmt: skip
    places = [text.find(each) for each in found]
    assert [each for each, place in zip(found, places, strict=True) if place < 0] == []
    assert places == sorted(places)


def test_the_terminal_judges_the_worst_thing_as_the_page_does() -> None:
    """The words, the circumstances and the answer are one text for both."""
    for board in (full(), shown(), shown(machine("account/main", trigger("fall", 0.036, 0.04)))):
        page, text = section_html("headline", board), drawn(board)
        for words in (board.headline.text, board.headline.detail):
            assert words in page
            assert words in text


def test_a_lost_terminal_counts_nothing_down_and_names_the_age() -> None:
    text = drawn(full(), 7.0)
    assert "LOST: the data are 7 s old" in text
    assert "Was: ALARM" in text
    assert "fires in" not in text


def test_a_low_terminal_says_how_much_it_leaves_out() -> None:
    """The worst things stay; nothing is left out in silence."""
    silences = tuple(
        SilenceView(f"s{number}", "ann", "x", "level=1", AT, None, is_document=False) for number in range(30)
    )
    text = drawn(replace(full(), silences=tuple(BoardSilence(it.id, it.matches, it.author, it.reason, None, it.until)
                                                for it in silences)), height=40)  # fmt: skip
    assert len(text.splitlines()) <= 40
    assert "further lines: `ksctl status` shows them" in text
    assert "close-everything fired on account/main" in text


def test_top_reads_a_store_and_a_server_alike(
    served: Served, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_view(store_path, run_view(datetime.now(UTC), interval=3600.0))
    local = CliRunner().invoke(ksctl, ["top", "--store", str(store_path), "--once"])
    monkeypatch.setenv("KILLSWITCH_TOKEN", served.tokens["viewer portfolio"])
    remote = CliRunner().invoke(ksctl, ["top", "--server", f"http://{served.host}", "--once"])
    assert (local.exit_code, remote.exit_code) == (0, 0), local.output + remote.output
    assert [line for line in local.output.splitlines()[1:] if "runner" not in line] == [
        line for line in remote.output.splitlines()[1:] if "runner" not in line
    ]
    assert "account/main" in local.output


def test_top_without_a_place_or_with_two_is_refused(tmp_path: Path) -> None:
    found = CliRunner().invoke(ksctl, ["top", "--server", "http://127.0.0.1:1", "--store", str(tmp_path / "x")])
    assert "name the store with --store, or a server with --server" in found.output


def test_the_preview_of_a_reset_says_what_the_policy_demands_after_it() -> None:
    """A plan from level 2 on: health for an hour, then seven steps of a day each; below that level nothing."""
    ended = Decision("r", AT, "fall", "sha256:0", "account/main", "enforce", None, 0, 2, kind="reset", author="ada")
    policies = planned(ramp="{steps: 7, every: 24h, thresholds: fixed, approvals: 2}")
    accepted, line = after_resets([ended], policies)
    assert accepted == "the reset of fall accepts the loss: losses are measured from the equity of that moment on"
    assert "nothing is opened until its health condition has held for 1h, then 7 steps" in line
    assert line.endswith("each after 1d without a warning and 2 approvals")
    _, line = after_resets([replace(ended, previous_level=1)], policies)
    assert line == "fall demands no way back: its reset leaves the limits whole"
    assert not list(
        after_resets(
            [replace(ended, level=2, kind=None), replace(ended, policy="operator", previous_level=0)], policies
        )
    )


def decided_on(scope: str, **more: Any) -> Decision:
    return Decision("d1" * 10, AT, "floor", "sha256:0", scope, "enforce", None, 0, 0, **more)


def test_a_preview_shows_nothing_that_the_tick_would_decide_in_scopes_of_others() -> None:
    """Neither a firing nor an automatic reset there; what the command itself decides is shown with its orders."""
    lock = operator_event("lock", "account/main", "ada", "drill", AT)
    own = decided_on("account/main", kind="manual", author="ada", reason="drill")
    reset = decided_on("account/other", kind="reset")
    preview = Preview(
        Snapshot(AT, (), "killswitch.snapshot/v1"), policy_set(crash_policy()), (), (), (own, reset), (), ""
    )
    whole = command_preview(lock, preview, lambda _: True, AT)
    part = command_preview(lock, preview, lambda scope: scope == "account/main", AT)
    assert "account/other" in whole.text
    assert "account/other" not in part.text + "".join(part.summary)
    assert part.summary == whole.summary
