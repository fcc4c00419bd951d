"""The board in a real browser: what it shows, when it looks lost, for whom it can be used, and what it sends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from killswitch.runner.status_blob import RunnerView
from tests.unit.server.boards import account, machine, open_page, put_pages, put_view, run_view, trigger, way_back
from tests.unit.server.browsing import DESKTOP, PHONE, BoardPage, axe_script, chromium
from tests.unit.server.conftest import Served

LONG = 3600.0
"""An interval after which no test is still running, so that nothing looks lost."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


OpenBoard = Callable[..., BoardPage]


@pytest.fixture
def board(browser: Browser, served: Served, store_path: Path) -> Iterator[OpenBoard]:
    """Opens the board of a run as it is, after a login; `who` None: at the form. Every page is closed in the end."""
    opened: list[BoardPage] = []

    def open_board(view: RunnerView | None = None, who: str | None = "risk portfolio", **how: Any) -> BoardPage:
        if view is not None:
            put_view(store_path, view)
        shown = BoardPage(browser, served, **how)
        opened.append(shown)
        if who is not None:
            shown.log_in(who)
        return shown

    yield open_board
    for each in opened:
        each.close()


def quiet(**more: Any) -> RunnerView:
    return run_view(datetime.now(UTC), **({"interval": LONG} | more))


def fired() -> RunnerView:
    """A stage fired on one of three accounts, another account is not read, and a trigger is near."""
    now = datetime.now(UTC)
    return quiet(
        accounts=(account(), account("hedge", quality="stale", reason="no answer for 20 s"), account("spot")),
        machines=(
            machine(
                "account/main", trigger("fall", 0.08, 0.045, truth=True), level=3, stage="close-everything",
                fired_at=now - timedelta(seconds=40), decision="ab" * 10,
            ),
            machine("account/hedge", trigger("fall", 0.01, 0.045, truth=None)),
            machine("account/spot", trigger("fall", 0.04, 0.045), trigger("rout", 0.01, 0.10)),
        ),
        problems=("the private stream of main was cut",),
    )  # fmt: skip


VIEWS = {"quiet": quiet, "fired": fired}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "light"), (DESKTOP, "dark")])
def test_nobody_is_kept_out_by_how_the_page_is_made(
    board: OpenBoard, view: str, size: tuple[int, int], scheme: str
) -> None:
    """axe finds nothing, on a phone and on a desktop, in light and dark; and nothing is wider than the screen."""
    shown = board(VIEWS[view](), size=size, scheme=scheme, script=axe_script())
    page = shown.page
    assert shown.violations() == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    page.click("#act")
    assert shown.violations() == []


def test_a_lost_page_can_be_read_by_everybody_too(board: OpenBoard) -> None:
    shown = board(
        run_view(datetime.now(UTC) - timedelta(seconds=90)), size=DESKTOP, scheme="light", script=axe_script()
    )
    page = shown.page
    expect(page.locator("#lost")).to_be_visible()
    assert shown.violations() == []


def test_the_page_loads_nothing_from_elsewhere_and_breaks_no_rule_of_its_own(
    board: OpenBoard, served: Served, store_path: Path
) -> None:
    """A breach of the policy of content is an error in the console."""
    shown = board(fired())
    page = shown.page
    put_view(store_path, quiet())
    expect(page.locator("h1")).to_contain_text("runner")
    assert (shown.problems, shown.hosts) == ([], {served.host})
    policy = served.ask("GET", "/board", "risk portfolio").headers["Content-Security-Policy"]
    assert "'unsafe" not in policy
    assert policy.startswith("default-src 'none'")


def test_the_worst_thing_is_the_largest_on_the_screen(board: OpenBoard) -> None:
    page = board(fired()).page
    sizes = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => e.firstChild?.nodeType === 3 && e.checkVisibility())"
        ".map(e => [parseFloat(getComputedStyle(e).fontSize), e.closest('#headline') && e.tagName])"
    )
    assert max(sizes)[1] == "H1"
    tones = page.locator("#list > li").evaluate_all("found => found.map(e => e.className)")
    assert tones == ["alarm", "warning", "near"]


def test_what_is_noted_on_a_quiet_scope_covers_nothing_of_it(board: OpenBoard) -> None:
    """The word `normal` is next to the name, and a sentence below it: each text has a place of its own."""
    machines = (machine("account/main"), machine("account/spot"))
    page = board(quiet(machines=machines, recoveries=(way_back("account/spot"),)), size=PHONE).page
    for number in range(2):
        parts = page.locator("#list > li").nth(number).locator("h3 button, p, meter")
        boxes = parts.evaluate_all("found => found.map(e => e.getBoundingClientRect().toJSON())")
        assert not [
            (one, other)
            for place, one in enumerate(boxes)
            for other in boxes[place + 1 :]
            if min(one["right"], other["right"]) - max(one["left"], other["left"]) > 1
            and min(one["bottom"], other["bottom"]) - max(one["top"], other["top"]) > 1
        ]


def test_a_tick_moves_the_bars_without_a_new_page(board: OpenBoard, store_path: Path) -> None:
    page = board(quiet(machines=(machine("account/main", trigger("fall", 0.01, 0.05)),))).page
    page.evaluate("window.sameDocument = true")
    expect(page.locator("#list label")).to_contain_text("1.00%")
    put_view(store_path, quiet(machines=(machine("account/main", trigger("fall", 0.03, 0.05)),)))
    expect(page.locator("#list label")).to_contain_text("3.00%")
    assert page.locator("#list meter").evaluate("e => e.value") == pytest.approx(0.6)
    assert page.evaluate("window.sameDocument") is True


def test_a_bar_is_filled_over_its_whole_height_as_far_as_its_threshold_is_reached(board: OpenBoard) -> None:
    """By the pixels: half of the threshold is half of the width, and the first and the last row are filled alike."""
    page = board(quiet(machines=(machine("account/main", trigger("fall", 0.025, 0.05)),))).page
    with Image.open(BytesIO(page.locator("#list meter").screenshot())) as drawn:
        rows = [[drawn.getpixel((x, y)) for x in range(drawn.width)] for y in (1, drawn.height // 2, drawn.height - 2)]
    assert rows[0] == rows[1] == rows[2]
    filled = rows[0].count(rows[0][2])
    assert filled / len(rows[0]) == pytest.approx(0.5, abs=0.03)


def test_a_stage_that_fires_comes_first_and_keeps_the_focus_where_it_was(board: OpenBoard, store_path: Path) -> None:
    page = board(quiet(machines=(machine("account/aa"), machine("account/main")))).page
    page.locator("#list button").last.focus()
    late = machine("account/main", level=1, stage="trim", fired_at=datetime.now(UTC), decision="cd" * 10)
    put_view(store_path, quiet(machines=(machine("account/aa"), late)))
    expect(page.locator("#list > li").first).to_contain_text("account/main")
    expect(page.locator("#list > li").first).to_contain_text("trim, level 1")
    assert page.evaluate("document.activeElement.textContent") == "account/main"


# Lost


def test_data_older_than_two_intervals_look_lost_everywhere(board: OpenBoard, store_path: Path) -> None:
    """At the top, at each head, in the title, and also at the end of the page."""
    page = board(run_view(datetime.now(UTC)), size=PHONE).page
    expect(page.locator("html.lost")).to_be_attached()
    expect(page.locator("#lost")).to_contain_text("Lost: the data are")
    heads = page.locator("main h2").evaluate_all("found => found.map(e => getComputedStyle(e, '::after').content)")
    assert heads
    assert all("lost" in each and " s old" in each for each in heads)
    assert page.title().startswith("LOST")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.locator("#lost")).to_be_in_viewport()
    put_view(store_path, quiet())
    expect(page.locator("html.lost")).not_to_be_attached()


def test_a_page_whose_machine_slept_a_day_is_lost_at_once(board: OpenBoard, store_path: Path) -> None:
    """The clock of the page is a virtual one, which jumps; no event has arrived meanwhile."""
    put_view(store_path, quiet())
    shown = board(who=None)
    page = shown.page
    page.clock.install()
    shown.log_in()
    page.clock.run_for(500)
    assert page.evaluate("document.documentElement.className") == ""
    page.evaluate("Object.defineProperty(document, 'hidden', {value: false}); source.close()")
    page.clock.fast_forward("24:00:00")
    assert page.evaluate("document.documentElement.className") == "lost"
    assert page.inner_text("#lost").startswith("Lost: the data are 24 h 00 min old")


def test_a_page_that_is_open_for_a_day_has_as_much_in_it_as_at_the_beginning(board: OpenBoard) -> None:
    """86,400 ticks, of which each moves bars and every tenth exchanges what has changed: nothing adds up."""
    page = board(quiet()).page
    page.evaluate("source.close(); source = null; clearTimeout(connect.timer)")
    first = page.evaluate("document.getElementsByTagName('*').length")
    found = page.evaluate(
        """() => {
          const key = list.firstElementChild.dataset.key, whole = list.firstElementChild.outerHTML;
          const switches = document.getElementById("switches").innerHTML;
          for (let tick = 0; tick < 86400; tick += 1) {
            const is_more = tick % 10 === 0;
            apply({beat, html: is_more ? {switches} : {}, scopes: is_more ? {[key]: whole} : {},
                   values: {[key]: [[0, (tick % 100) / 100, `${tick}%`]]}}, number + 1);
          }
          return [document.getElementsByTagName("*").length, list.querySelector("label b").textContent, number];
        }"""
    )
    assert found[0] == first
    assert found[1] == "86399%"


def test_a_page_looks_lost_within_a_second_of_two_intervals(browser: Browser, served: Served, store_path: Path) -> None:
    """By a virtual clock, and by the age alone: no event arrives and none is missed."""
    put_view(store_path, run_view(datetime.now(UTC), interval=10.0))
    shown = BoardPage(browser, served)
    page = shown.page
    page.clock.install()
    shown.log_in()
    page.evaluate("source.close(); source = null; cut = ''; failures = 0")
    left = 20_000 - page.evaluate("age()") * 1000
    page.clock.run_for(int(left) - 300)
    assert page.evaluate("document.documentElement.className") == ""
    page.clock.run_for(1300)
    assert page.evaluate("document.documentElement.className") == "lost"
    assert page.inner_text("#lost").startswith("Lost: the data are 2")
    shown.close()


def test_a_server_that_is_gone_makes_the_page_lost_and_another_one_asks_for_a_token(
    board: OpenBoard, served: Served
) -> None:
    page = board(quiet()).page
    served.stop()
    expect(page.locator("html.lost")).to_be_attached()
    expect(page.locator("#lost")).to_contain_text("o connection to the server")


# Sessions and commands


def test_the_session_is_a_cookie_that_no_script_reads_and_no_other_site_sends(board: OpenBoard, served: Served) -> None:
    page = board(quiet()).page
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    assert page.evaluate("document.cookie") == ""
    value = f"{cookie['name']}={cookie['value']}"
    read = served.ask("GET", "/v1/board", headers={"Cookie": value})
    assert read.status_code == 200
    command = {"kind": "lock", "scope": "account/main", "reason": "x"}
    headers = {"Cookie": value, "Idempotency-Key": "from-another-page"}
    assert served.ask("POST", "/v1/commands", json=command, headers=headers).status_code == 403
    page.click("#leave")
    page.wait_for_selector("#token")
    assert served.ask("GET", "/v1/board", headers={"Cookie": value}).status_code == 401


def test_a_wrong_token_opens_nothing_and_is_named(board: OpenBoard, served: Served) -> None:
    shown = board(who=None)
    shown.page.goto(f"http://{served.host}/board")
    shown.page.fill("#token", "kst_wrong")
    shown.page.press("#token", "Enter")
    expect(shown.page.locator("#why")).to_contain_text("no valid token")


def test_a_command_is_given_with_the_keyboard_alone_and_only_after_its_scope_was_typed(
    board: OpenBoard, served: Served
) -> None:
    """No preview can be made without a run, and what only reduces risk stays possible."""
    shown = board(quiet())
    page = shown.page
    page.focus("#act")
    page.keyboard.press("Enter")
    page.select_option("#kind", "lock")
    page.fill("#scope", "account/main")
    page.fill("#reason", "price feed lost")
    page.press("#reason", "Enter")
    expect(page.locator("#shown")).to_contain_text("no preview")
    page.fill("#typed", "account/mai")
    page.press("#typed", "Enter")
    assert list(served.spool.folder.glob("*lock*")) == []
    expect(page.locator("#do")).to_be_disabled()
    page.fill("#typed", "account/main")
    page.press("#typed", "Enter")
    expect(page.locator("#shown")).to_contain_text("accepted: lock account/main")
    (command,) = [json.loads(each.read_bytes()) for each in served.spool.folder.glob("*.json")]
    assert (command["event"]["kind"], command["event"]["author"]) == ("lock", "risk of portfolio")
    page.keyboard.press("Escape")
    expect(page.locator("#command")).not_to_be_visible()


def test_the_button_of_a_firing_acknowledges_what_it_was_next_to(board: OpenBoard, store_path: Path) -> None:
    """By its number: a firing that arrives meanwhile is not covered."""
    put_pages(store_path, open_page(7, "ab" * 10))
    shown = board(quiet())
    page = shown.page
    sent: list[Any] = []
    page.on("request", lambda each: sent.append(each.post_data_json) if each.url.endswith("/v1/preview") else None)
    page.click("#firings button")
    assert page.input_value("#kind") == "acknowledge"
    page.fill("#reason", "seen")
    page.click("#preview")
    expect(page.locator("#shown")).not_to_contain_text("Working out")
    assert sent == [{"kind": "acknowledge", "incident": "ab" * 10, "reason": "seen", "number": 7}]


def test_a_viewer_sees_why_a_command_is_refused(board: OpenBoard) -> None:
    shown = board(quiet(), who="viewer portfolio")
    page = shown.page
    page.click("#list button")
    page.select_option("#kind", "reset")
    page.fill("#reason", "x")
    page.click("#preview")
    expect(page.locator("#shown")).to_contain_text("the role viewer may not")
    expect(page.locator("#do")).not_to_be_visible()


def test_the_page_of_one_account_offers_its_scope_alone_and_says_what_it_shows(
    board: OpenBoard, store_path: Path
) -> None:
    """Also after a change; the name of the other account is nowhere in the document."""
    both = (machine("account/main"), machine("account/zebra"))
    page = board(quiet(machines=both, accounts=(account(), account("zebra"))), who="risk account/main").page
    expect(page.locator("#mode")).to_contain_text("shows the account main of 2")
    page.click("#act")
    assert page.locator("#known option").evaluate_all("found => found.map(e => e.value)") == ["account/main"]
    put_view(store_path, quiet(machines=both, accounts=(account(), account("zebra"), account("okapi"))))
    expect(page.locator("#mode")).to_contain_text("shows the account main of 3")
    assert "zebra" not in page.content()


def test_the_mode_of_the_run_changes_with_it(board: OpenBoard, store_path: Path) -> None:
    """A run that begins to act, or ends to, is shown so at the top without a new page."""
    page = board(quiet()).page
    expect(page.locator("#mode")).to_have_text("acts")
    put_view(store_path, quiet(live=False))
    expect(page.locator("#mode")).to_have_text("observes only")


def test_five_hundred_scopes_are_less_than_300_kilobytes(served: Served, store_path: Path) -> None:
    """With four triggers each, as they are sent: nothing is compressed."""
    triggers = [trigger(name, 0.01, 0.045) for name in ("fall", "leverage", "largest", "one-side")]
    names = [f"a-{number:04d}" for number in range(500)]
    put_view(store_path, quiet(
        machines=tuple(machine(f"account/{name}", *triggers) for name in names),
        accounts=tuple(map(account, names)),
    ))  # fmt: skip
    page = served.ask("GET", "/board", "viewer portfolio")
    assert page.text.count("<meter") == 2000
    assert len(page.content) < 300_000
