"""The board of a token that sees some accounts: nothing of any other one is in any byte of it.

The store is full of what belongs to others: accounts called zebra and okapi at a venue called zoo, with numbers, ids
and texts of their own. Each test compares with the board of the whole book, which shows all of that.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.accounts.poll.push_listener import StreamView
from killswitch.engine.alerts import AlertState, KnownAlert, encode_state
from killswitch.incident.record.results import Result
from killswitch.limits.view import GateView, encode_gate_view
from killswitch.model.alert import Alert, NoticeGroup
from killswitch.model.decision import Notice
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Residual, Snapshot
from killswitch.model.store import ALERTS, ROUTING, RouteCount, TickRecord
from killswitch.operations.board import Board, BoardFacts, encode_board
from killswitch.operations.commands import operator_event
from killswitch.operations.notifying import HeldMessage, SilenceView
from killswitch.operations.preview import Preview
from killswitch.operations.scoped_board import audience_of, board_for
from killswitch.operations.status import ActiveAlert, LockView, OpenClosing, StoreStatus
from killswitch.operations.stored_preview import PreviewRequest, encode_command_preview
from killswitch.planning.operator.closes import Orphan
from killswitch.planning.routing.state import OpenPage
from killswitch.runner.dead_man.timer_record import TimerView
from killswitch.runner.status_blob import AccountView, RunnerView
from killswitch.server import preview_routes
from killswitch.server.board import feed as feed_module
from killswitch.server.board.feed import BoardFeed, Channel
from killswitch.server.board.parts import SECTIONS, HtmlChannel, RecordChannel, scope_html, section_html
from killswitch.store.sqlite import open_store
from killswitch.watcher.watch import SwitchView
from tests.graphs import policy_set
from tests.runner_world import crash_policy
from tests.unit.server.boards import AT, account, machine, open_page, put_pages, put_view, run_view, trigger, way_back
from tests.unit.server.conftest import Served
from tests.unit.server.test_board_content import ALIVE, decided_on
from tests.unit.server.test_event_streams import Listener

MARKS = ("zebra", "okapi", "zoo", "987654", "987,654", "31.41", "fefefe", "27.18")
"""What of the store is of others: names, an equity, values of triggers, an id."""
OTHER = "fe" * 10
MAIN = ("account/main",)


def lock(scope: str | None, reason: str, **more: Any) -> LockView:
    fields: dict[str, Any] = {
        "file": f"/locks/{scope}.json", "locked": True, "mode": "reduce_only", "stage": None, "until": None,
        "alive_until": None, "ordered": True, "stale": False,
    }  # fmt: skip
    return LockView(scope=scope, reason=reason, **(fields | more))


def closing(decision: str, scope: str, account: str, symbol: str) -> OpenClosing:
    result = Result("closing", (), (), (), None, (), 0, None, None)
    return OpenClosing(decision, scope, account, result, (Residual(account, symbol, "long", Decimal(2)),))


def switch(name: str, *accounts: str) -> SwitchView:
    text = "no heartbeat of zebra for 987654 s"
    return SwitchView(name, "the runner", "a file", accounts, "close", "fired", AT, 30.0, 1.0, 5.0, None, None, (),
                      why=text)  # fmt: skip


def alert(key: str, scope: str, text: str) -> ActiveAlert:
    return ActiveAlert(key, "page", AT, text, scope)


def view_of_all(**more: Any) -> RunnerView:
    """A run with the account main, on which nothing is wrong, and two of others, on which everything is."""
    others = (
        account("zebra", venue="zoo", quality="stale", reason="zoo answers 987654", equity=Decimal(987654)),
        account("okapi", venue="zoo", equity=Decimal(987654), armed=False),
    )
    fired: dict[str, Any] = {"level": 3, "stage": "close-zebra", "fired_at": AT, "decision": OTHER}
    machines = (
        machine("account/main", trigger("fall", 0.01, 0.04)),
        machine("account/zebra", trigger("fall", 0.3141, 0.2718, truth=True), **fired),
        machine("portfolio", trigger("fall", 0.3141, 0.2718, truth=True)),
        machine("label/zoo-desk", trigger("fall", 0.3141, 0.2718, truth=None)),
    )
    fields: dict[str, Any] = {
        "accounts": (account(), *others), "machines": machines, "policies": ("policies/zebra.yaml",),
        "problems": ("the stream of zebra was cut at 987654",),
        "orphans": (Orphan("gone", "account/okapi", 1, "stop"),),
        "needs_start": ("account zebra is new",), "recoveries": (way_back(), way_back("account/okapi")),
        "streams": (StreamView("main", "heard"), StreamView("zebra", "lost", why="zoo")),
        "timers": (TimerView("zebra", "night", "unknown", why="zoo refuses"), TimerView("main", "night", "armed", AT)),
        "suspended": ("zebra",),
    }  # fmt: skip
    return run_view(AT, **(fields | more))


def facts_of_all(view: RunnerView | None = None) -> BoardFacts:
    """What a store has in which every list has something of others."""
    events = (operator_event("close", "account/zebra", "zoo-keeper", "x", AT),)
    status = StoreStatus(
        now=AT, runner=ALIVE, view=view or view_of_all(), view_problem=None, pending=events,
        locks=(
            lock("account/zebra", "zebra fell by 31.41%"), lock("union", "zebra and others"), lock(None, "zoo hangs"),
            lock("portfolio", "zebra fell"),
            lock("account/main", "31.41% of zebra", wider=("portfolio",), has_own=False),
        ),
        closings=(
            closing(OTHER, "account/zebra", "zebra", "OKAPI/USDT"),
            closing("fe" * 9 + "01", "portfolio", "main", "BTC/USDT"),
            closing("fe" * 9 + "02", "label/zoo-desk", "main", "ETH/USDT"),
        ),
        notices=(Notice(AT, "p", "account/zebra", "warning", "page", "zebra fell"),),
        notifications=(RouteCount("route/zoo", "mail to okapi", 2, 1, 1, None, "x"),),
        problems=("no runner works on the closing of fefefefe on zebra",),
        active_alerts=(
            alert("outage/zebra", "runner", "zebra cannot be read: 987654"),
            alert("outage/main", "runner", "main is slow"),
            alert("trigger/drawdown/account/zebra/fall", "account/zebra", "fall of zebra is unknown"),
            alert("trigger/drawdown/account/main/fall", "account/main", "fall is unknown"),
            alert("hedge/account/main", "account/main", "the hedge on zebra costs 27.18"),
            alert("file/account/main", "account/main", "see account__okapi.json"),
            alert("wall-clock/ahead", "runner", "the clock is ahead"),
        ),
        switches=(switch("night", "main", "zebra"), switch("zoo", "okapi")),
        silences=(SilenceView("s1", "zoo-keeper", "zebra is noisy", "scope=account/zebra", AT, None, False),),
        held=(HeldMessage("mail", "near/zebra", "zebra is near", "warning", "silenced", "s1", AT),),
    )  # fmt: skip
    return BoardFacts(status, (of_zebra(open_page(7, OTHER)), open_page(8, "ab" * 10)), None)


def of_zebra(page: OpenPage) -> OpenPage:
    """The firing as one of an account of others."""
    item = page.announcement
    return replace(page, announcement=replace(item, attributes=replace(item.attributes, scope="account/zebra")))


def whole_text(board: Board) -> str:
    """Every byte that is sent of a board: as JSON, as parts of the page, and as changes of both streams."""
    texts = [encode_board(board).decode()]
    texts += [section_html(name, board) for name in SECTIONS]
    texts += [scope_html(each, 100) for each in board.scopes]
    changed = replace(board, scopes=(), troubles=(), headline=replace(board.headline, text="other"))
    texts += [encode_board(changed).decode()]
    texts += [repr(channel.changed(changed, board)) for channel in (HtmlChannel(), RecordChannel())]
    return "\n".join(texts).lower()


def test_nothing_of_another_account_is_in_any_byte_of_the_board() -> None:
    """Of the whole book the same bytes have all of it."""
    everything, part = (
        whole_text(board_for(facts_of_all(), ("portfolio",))),
        whole_text(board_for(facts_of_all(), MAIN)),
    )
    assert [mark for mark in MARKS if mark not in everything] == []
    assert [mark for mark in MARKS if mark in part] == []


def test_what_is_of_the_account_is_shown_with_everything_that_holds_it() -> None:
    """Its stage, its locks also by wider scopes, the closes on it, its alerts, its way back, and its timer."""
    board = board_for(facts_of_all(), MAIN)
    assert [each.scope for each in board.scopes] == ["account/main"]
    assert [(each.scope, each.reason) for each in board.locks] == [
        ("unknown", "lock files cannot be read: whether trading is locked is not known"),
        ("portfolio", "its reason is shown to a token of portfolio"),
        ("account/main", "locked with portfolio"),
    ]
    assert [(each.scope, each.account, each.left) for each in board.incidents] == [
        ("portfolio", "main", "2 BTC/USDT"), ("a scope of others", "main", "2 ETH/USDT"),
    ]  # fmt: skip
    hidden = "not shown: it names what this token does not see"
    assert {each.text for each in board.troubles} == {
        "main is slow", "fall is unknown", hidden, "the clock is ahead",
        "lock files cannot be read: whether trading is locked is not known",
    }  # fmt: skip
    assert [each.scope for each in board.scopes] == [scope for scope, _ in board.ways_back] == ["account/main"]
    assert [each.name for each in board.switches] == ["night", "main"]
    assert board.switches[0].state == f"fired: {hidden}"
    assert [each.number for each in board.firings] == [8]


def test_the_page_says_which_part_of_the_book_it_shows_and_counts_that_part_only() -> None:
    board = board_for(facts_of_all(), MAIN)
    assert board.part == "shows the account main of 3"
    assert "shows the account main of 3" in section_html("mode", board)
    assert [(each.venue, each.read, each.of, each.tone) for each in board.venues] == [("paper", 1, 1, "calm")]
    two = board_for(facts_of_all(), ("account/main", "account/zebra"))
    assert two.part == "shows the accounts main, zebra of 3"
    assert board_for(facts_of_all(), ("account/none",)).part == (
        "shows none of 3 accounts; scopes of this token: account/none"
    )
    assert board_for(facts_of_all(), ("portfolio",)).part == ""


def test_all_is_quiet_where_nothing_is_wrong_with_what_is_seen() -> None:
    """Whatever has fired elsewhere; and on an account where something has, that is the headline."""
    status = facts_of_all().status
    quiet = BoardFacts(replace(status, locks=(), closings=(), active_alerts=(), switches=(), pending=()), (), None)
    assert status.view is not None
    view = replace(status.view, recoveries=(), timers=())
    quiet = replace(quiet, status=replace(quiet.status, view=view))
    board = board_for(quiet, MAIN)
    assert (board.headline.text, board.headline.tone) == ("All quiet", "calm")
    assert "nearest 25%" in board.headline.detail
    assert board_for(quiet, ("account/zebra",)).headline.text == "close-zebra fired on account/zebra"


def test_what_is_of_the_whole_run_is_not_called_quiet_where_it_is_not_shown() -> None:
    board = board_for(facts_of_all(), MAIN)
    assert "None waits" not in section_html("messages", board)
    assert "a token of the portfolio shows them" in section_html("messages", board)
    assert [name for name, _ in board.policies] == ["set in force", "runner"]


def test_a_switch_that_is_called_like_an_account_of_others_is_not_named() -> None:
    facts = facts_of_all()
    named = replace(facts, status=replace(facts.status, switches=(switch("zebra", "main", "zebra"),)))
    board = board_for(named, MAIN)
    assert (len(board.switches), "zebra" in whole_text(board)) == (2, False)  # with the timer of the account


def test_a_venue_is_seen_with_its_accounts_and_without_any_other() -> None:
    board = board_for(facts_of_all(), ("venue/zoo",))
    assert board.part == "shows the accounts okapi, zebra of 3; scopes of this token: venue/zoo"
    assert [each.venue for each in board.venues] == ["zoo"]
    assert [each.scope for each in board.scopes] == []  # its policies are on scopes of their own


def test_tokens_that_see_the_same_are_one_audience() -> None:
    assert audience_of(["account/b", "account/a", "account/b"]) == audience_of(["account/a", "account/b"])
    assert audience_of(["account/a", "portfolio"]) == ("portfolio",)


accounts_of_others = st.lists(
    st.builds(
        lambda name, equity, quality: account(f"other-{name}", equity=equity, quality=quality, reason="x"),
        st.integers(0, 3), st.decimals(-10**6, 10**6, places=2), st.sampled_from(["ok", "stale", "down"]),
    ),
    min_size=2, max_size=2, unique_by=lambda it: it.account,
)  # fmt: skip
others_machines = st.builds(
    lambda value, truth, level: machine(
        "account/other-1", trigger("fall", value, 0.5, truth=truth), level=level, stage="stop" if level else None,
        fired_at=AT if level else None, decision=OTHER if level else None,
    ),
    st.floats(0, 1), st.sampled_from([True, False, None]), st.integers(0, 3),
)  # fmt: skip


@given(accounts_of_others, accounts_of_others, others_machines, others_machines, st.text(max_size=20), st.booleans())
def test_whatever_happens_to_others_changes_nothing_of_the_board(
    one: list[AccountView], two: list[AccountView], before: Any, after: Any, text: str, closes: bool
) -> None:
    """Their number alone is shown. So nothing of them can be inferred from it, neither by ranks nor by counts."""

    def shown(others: list[AccountView], of_other: Any, problem: str, is_closing: bool) -> Board:
        view = run_view(
            AT, accounts=(account(), *others), machines=(machine("account/main"), of_other), problems=(problem,)
        )
        closings = (closing(OTHER, "account/other-1", "other-1", "BTC/USDT"),) if is_closing else ()
        status = StoreStatus(
            now=AT, runner=ALIVE, view=view, view_problem=None, locks=(), closings=closings, pending=(), notices=(),
            active_alerts=(alert("outage/other-1", "runner", f"other-1 {problem}"),) if is_closing else (),
        )  # fmt: skip
        return board_for(BoardFacts(status, (), None), MAIN)

    assert shown(one, before, text, closes) == shown(two, after, "", not closes)


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("audience", [("portfolio",), MAIN], ids=str)
def test_a_section_reads_the_fields_of_the_board_that_are_compared_and_no_others(
    section: str, audience: tuple[str, ...]
) -> None:
    """Or a change of another one would not reach the page: a template fails for a field that is not there."""
    whole = board_for(facts_of_all(), audience)
    part = SimpleNamespace(**{field: getattr(whole, field) for field in SECTIONS[section]})
    assert section_html(section, cast("Board", part)) == section_html(section, whole)


# Over HTTP


def put_all(store_path: Path) -> None:
    """Leave a run in the store, of which nearly everything is of others."""
    now = datetime.now(UTC)
    put_view(store_path, replace(view_of_all(), as_of=now, interval=3600.0))
    put_pages(store_path, of_zebra(open_page(7, OTHER)))
    known = KnownAlert(
        Alert("near/zebra", "page", "zebra fell by 31.41%", NoticeGroup("drawdown", "account/zebra")), to_micros(AT),
        to_micros(AT), "page",
    )  # fmt: skip
    store = open_store(str(store_path))
    store.put_live(ALERTS, encode_state(AlertState({"near/zebra": known})))
    store.close()


def test_a_token_of_one_account_opens_its_board_and_no_byte_of_it_is_of_others(
    served: Served, store_path: Path
) -> None:
    """The page, the board as JSON, and both streams: their first events and a change."""
    put_all(store_path)
    who = "risk account/main"
    listeners = [Listener(served, who, path) for path in ("/v1/events", "/board/events")]
    found = [served.ask("GET", path, who).text for path in ("/board", "/v1/board")]
    found += [json.dumps(each.next("hello")) for each in listeners]
    busier = view_of_all(machines=(machine("account/main", trigger("fall", 0.03, 0.04)), *view_of_all().machines[1:]))
    put_view(store_path, replace(busier, as_of=datetime.now(UTC) + timedelta(seconds=1), interval=3600.0))
    found += [json.dumps(each.next("change")) for each in listeners]
    assert "3.00%" in found[-1]
    whole = served.ask("GET", "/board", "risk portfolio").text.lower()
    assert [mark for mark in MARKS if mark not in whole] == ["27.18"]  # which only an alert that is not there has
    text = "\n".join(found).lower()
    assert [mark for mark in MARKS if mark in text] == []
    assert "shows the account main of 3" in found[0]
    assert [each["scope"] for each in json.loads(found[1])["scopes"]] == ["account/main"]


def test_two_audiences_cost_one_read_of_the_store_and_each_has_numbers_without_gaps(store_path: Path) -> None:
    """Also one that comes later, and one that nobody has watched for a while: it goes on with its numbers."""
    put_all(store_path)
    channels: dict[str, Channel] = {"html": HtmlChannel(), "records": RecordChannel()}
    clock = [0.0]

    async def watch() -> None:
        feed = BoardFeed(store_path, lambda: clock[0], channels)
        whole = await feed.newest(("portfolio",))
        part = await feed.newest(MAIN)
        assert (feed.reads, whole.number, part.number) == (1, 1, 1)
        streams = [await feed.follow("records", "ann", lambda: None, it) for it in (("portfolio",), MAIN)]
        await feed.read_now()
        assert (feed.reads, feed.beat(MAIN).number) == (2, 1)  # nothing has changed
        put_view(store_path, replace(view_of_all(), as_of=datetime.now(UTC)))
        await feed.read_now()
        assert [feed.beat(it).number for it in (("portfolio",), MAIN)] == [2, 2]
        for each in streams:
            feed.streams.close(each)
        clock[0] += 3600
        await feed.read_now()  # nobody watches
        put_view(store_path, replace(view_of_all(), as_of=datetime.now(UTC)))
        assert (await feed.newest(MAIN)).number == 3

    anyio.run(watch)


def test_whoever_comes_while_the_feed_goes_to_sleep_has_it_read_on(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader of the store sleeps at once and the heartbeat at its next beat: it must not pass for both."""
    put_all(store_path)
    monkeypatch.setattr(feed_module, "BEAT_EVERY", 3600.0)
    clock = [0.0]

    async def watch() -> None:
        feed = BoardFeed(store_path, lambda: clock[0], {"records": RecordChannel()})
        await feed.newest(MAIN)
        await anyio.sleep(0.01)  # both begin
        clock[0] += 2 * feed_module.IDLE_AFTER
        await asyncio.wait([task for task in asyncio.all_tasks() if "_watch" in repr(task.get_coro())], timeout=10)
        await feed.newest(MAIN)
        before = feed.reads
        with anyio.fail_after(10):
            while feed.reads == before:
                clock[0] += 0.01
                await anyio.sleep(0.01)

    anyio.run(watch)


class CountingChannel:
    """Counts how often a change is made into what is sent."""

    def __init__(self) -> None:
        self.made = 0

    def changed(self, before: Board | None, after: Board) -> dict[str, object]:
        self.made += 1
        return {"scopes": len(after.scopes)}


def test_two_hundred_boards_cost_one_read_and_one_rendering_for_each_set_of_scopes(store_path: Path) -> None:
    """25 people with eight boards each, of the portfolio and of two accounts; all get the change."""
    put_all(store_path)
    counting = CountingChannel()
    audiences = (("portfolio",), MAIN, ("account/zebra",))

    async def watch() -> None:
        feed = BoardFeed(store_path, lambda: 0.0, {"html": counting})
        streams = [
            await feed.follow("html", f"person {number // 8}", lambda: None, audiences[number // 8 % 3])
            for number in range(200)
        ]
        reads = feed.reads
        put_view(store_path, replace(view_of_all(), as_of=datetime.now(UTC)))
        await feed.read_now()
        assert (feed.reads - reads, counting.made) == (1, 3)
        for each in streams:
            each.end("seen")
            events = [event async for event in each.events()]
            assert events[0].startswith(b"id: 2\nevent: change")

    anyio.run(watch)


@pytest.mark.parametrize("path", ["/v1/commands", "/v1/preview", "/v1/plan"])
@pytest.mark.parametrize(
    "command",
    [
        {"kind": "close", "scope": "account/zebra"}, {"kind": "lock", "scope": "portfolio"},
        {"kind": "halt", "scope": None}, {"kind": "close", "scope": "account/mein"},
        {"kind": "unlock", "scope": "account/zebra"}, {"kind": "acknowledge", "incident": OTHER},
        {"kind": "acknowledge", "incident": "fefe", "scope": "account/main"},
        {"kind": "pause", "scope": "policy/drawdown", "seconds": 60},
    ],
    ids=str,
)  # fmt: skip
def test_a_command_on_others_is_refused_and_its_refusal_names_nothing_of_them(
    served: Served, store_path: Path, path: str, command: dict[str, Any]
) -> None:
    """Also one on a scope that is not there, whose refusal lists what is."""
    put_all(store_path)
    answer = served.ask(
        "POST", path, "risk account/main", json={"reason": "x", **command}, headers={"Idempotency-Key": "not-of-mine"}
    )
    assert answer.status_code in (403, 409)
    named = json.dumps(command).lower()
    assert [mark for mark in MARKS if mark in answer.text.lower() and mark not in named] == []
    assert not list(served.spool.folder.glob("*.json"))


def test_a_scope_of_the_token_that_the_run_has_not_lists_no_other(served: Served, store_path: Path) -> None:
    put_all(store_path)
    put_view(store_path, replace(view_of_all(), accounts=view_of_all().accounts[1:], machines=()))
    answer = served.give("risk account/main", "gone-account", kind="close", scope="account/main", reason="x")
    assert (answer.status_code, answer.json()["detail"].partition(" Known: ")[2]) == (409, "nothing")


def test_a_token_acknowledges_the_firings_of_its_scopes_and_no_others(served: Served, store_path: Path) -> None:
    """Those of others are as unknown as if they were not there. The portfolio acknowledges both."""
    own = "ab" * 10
    put_pages(store_path, of_zebra(open_page(7, OTHER)), open_page(8, own))
    store = open_store(str(store_path))
    made = tuple(
        replace(decided_on(scope), id=each) for scope, each in (("account/zebra", OTHER), ("account/main", own))
    )
    live = {ROUTING: store.live(ROUTING) or b""}
    store.commit_tick(TickRecord(AT, "sha256:0", (), (), made, (), (), None, (), 0, live=live))
    store.close()
    put_view(store_path, view_of_all())

    def acknowledge(who: str, incident: str, path: str = "/v1/commands") -> requests.Response:
        body = {"kind": "acknowledge", "incident": incident, "reason": "x"}
        key = {"Idempotency-Key": f"{who}-{incident}".replace(" ", "-")}
        return served.ask("POST", path, who, json=body, headers=key)

    refused = acknowledge("trader account/main", OTHER)
    assert (refused.status_code, refused.json()["detail"].partition("waiting: ")[2]) == (409, own)
    shown = acknowledge("trader account/main", own, "/v1/preview").json()
    assert shown["summary"] == ["acknowledges 1 firing: their escalation ends"]
    given = acknowledge("trader account/main", own)
    assert (given.status_code, given.json()["scope"]) == (202, "account/main")
    assert served.ask("GET", f"/v1/commands/{given.json()['id']}", "trader account/main").status_code == 200
    assert acknowledge("trader portfolio", OTHER).status_code == 202


# The dry run


def test_a_dry_run_names_no_account_of_others_and_nothing_that_the_tick_decides_there() -> None:
    """Its `unreadable` had the names of all accounts; another command of the same person is of other scopes, too."""
    event = operator_event("close", "account/main", "ada", "x", AT)
    decisions = (decided_on("account/main", kind="manual", author="ada", reason="x"),
                 decided_on("account/zebra", kind="manual", author="ada", reason="x"))  # fmt: skip
    accounts = (account(quality="stale", reason="slow"), account("zebra", venue="zoo", quality="down", reason="zoo"))
    notices = tuple(
        Notice(AT, "operator", f"account/{name}", "warning", "warning", f"{name} waits") for name in ("main", "zebra")
    )
    shown = Preview(
        Snapshot(AT, (), "killswitch.snapshot/v1"), policy_set(crash_policy()), accounts, (), decisions, notices, ""
    )
    view = GateView(AT, AT, "sha256:0", ())
    whole, part = (json.loads(encode_command_preview(shown, view, event, it)) for it in (("portfolio",), MAIN))
    assert [len(whole[key]) for key in ("unreadable", "decisions", "notices")] == [2, 2, 2]
    assert part["unreadable"] == ["main is stale: slow"]
    assert [each["scope"] for each in part["decisions"]] == ["account/main"]
    assert [each["scope"] for each in part["notices"]] == ["account/main"]
    assert "zebra" not in json.dumps(part)


def test_a_dry_run_is_made_for_the_scopes_of_its_token(
    served: Served, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[PreviewRequest] = []

    def previewed(request: PreviewRequest) -> bytes:
        asked.append(request)
        return b"{}"

    monkeypatch.setattr(preview_routes, "previewed", previewed)
    put_view(store_path, view_of_all())
    Path(f"{store_path}.gate.json").write_bytes(encode_gate_view(GateView(AT, AT, "sha256:0", ())))
    close = {"kind": "close", "scope": "account/main", "reason": "x"}
    assert served.ask("POST", "/v1/plan", "risk account/main", json=close).status_code == 200
    assert [each.scopes for each in asked] == [MAIN]


def test_a_token_without_any_scope_sees_no_account() -> None:
    """A statement of the function, because no token without a scope is issued."""
    board = board_for(facts_of_all(), audience_of(()))
    assert (board.scopes, board.venues, board.incidents, board.firings) == ((), (), (), ())
    assert [mark for mark in MARKS if mark in whole_text(board)] == []
