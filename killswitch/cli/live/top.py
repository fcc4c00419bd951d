"""`ksctl top`: the board in a terminal, from a store or from a server."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click

from killswitch.cli import options
from killswitch.cli.options import option
from killswitch.cli.terminal import terminal_width

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from killswitch.operations.board import Board, BoardScope, Tone, TriggerBar

REDRAW: Final = 0.25
"""Seconds between two drawings: what becomes lost looks so within a second, whatever the store does."""
BAR: Final = 12
"""Columns of a bar."""
ANSWERS_WITHIN: Final = 5.0
"""Seconds that a server may take to answer."""
LEAST_SCOPES: Final = 4
"""Rows that the scopes keep, however much else there is."""
STYLES: Final = {"alarm": "bold white on red", "warning": "bold yellow", "near": "bold", "calm": ""}
WORDS: Final = {"alarm": "ALARM", "warning": "WARNING", "near": "NEAR", "calm": "quiet"}


@options.verb("ksctl top --store ks.sqlite", "ksctl top --server http://127.0.0.1:8600")
@click.option(
    "--store", "store_at", metavar="FILE", envvar="KSCTL_STORE", show_envvar=True, help="The store of the run."
)
@click.option("--server", metavar="URL", help="Read from this server instead, with the token of KILLSWITCH_TOKEN.")
@option("--every", type=options.DURATION, default="1s", help="How often to read.")
@click.option("--once", is_flag=True, help="Print it once, as where stdout is no terminal.")
def top(store_at: str | None, server: str | None, every: float, once: bool) -> None:
    """Follow a run in the terminal: the worst thing first, then every scope with its nearest trigger.

    It shows what the live board of `ksctl serve` shows, and looks lost where the data are older than two intervals of
    the run. It changes nothing, and sends no request to a venue. Ctrl-C ends it.
    """
    if (store_at is None) == (server is None):
        raise click.UsageError("name the store with --store, or a server with --server")
    read = _of_server(server) if server is not None else _of_store(store_at or "")
    from rich.console import Console
    from rich.live import Live

    console = Console(file=sys.stdout, highlight=False, width=None if terminal_width() else 120)
    if once or terminal_width() is None:
        console.print(screen(read(), 0.0, None, console.width, ""))
        return
    board, problem, read_at = read(), "", time.monotonic()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            since = time.monotonic() - read_at
            if since >= every:
                try:
                    board, problem, read_at = read(), "", time.monotonic()
                except click.ClickException as error:
                    problem = error.format_message()
                since = time.monotonic() - read_at
            live.update(screen(board, since, console.height, console.width, problem), refresh=True)
            time.sleep(REDRAW)


def _of_store(store_at: str) -> Callable[[], Board]:
    from killswitch.cli.session import opened_store
    from killswitch.operations.board import read_board
    from killswitch.runner.clock import SystemClock
    from killswitch.runner.status_blob import tick_time
    from killswitch.store.sqlite import sign_of_life

    def read() -> Board:
        with opened_store(store_at, read_only=True) as store:
            sign = sign_of_life(store_at)
            return read_board(store, datetime.now(UTC), tick_time(store, SystemClock()), sign)

    return read


def _of_server(server: str) -> Callable[[], Board]:
    import os

    import requests
    from msgspec import MsgspecError

    from killswitch.operations.board import decode_board

    token = os.environ.get("KILLSWITCH_TOKEN")
    if not token:
        raise click.UsageError("set KILLSWITCH_TOKEN to a token of the server: see `ksctl serve token`")
    headers = {"Authorization": f"Bearer {token}"}

    def read() -> Board:
        try:
            answer = requests.get(
                f"{server.rstrip('/')}/v1/board", headers=headers, timeout=ANSWERS_WITHIN, allow_redirects=False
            )
            if answer.status_code != 200:
                raise click.ClickException(f"{server} answers {answer.status_code}: {answer.text[:300]}")
            return decode_board(answer.content)
        except requests.RequestException as error:
            raise click.ClickException(f"{server} does not answer: {type(error).__name__}") from error
        except MsgspecError as error:
            raise click.ClickException(f"{server} answers with something else than a board: {error}") from error

    return read


# Drawing


def screen(board: Board, since: float, height: int | None, width: int, problem: str) -> RenderableType:
    """The board in `height` rows, None: all. `since`: seconds since it was read; `problem`: why it is not read now.

    The order is that of the page. Where rows are few, the scopes keep at least `LEAST_SCOPES` of them.
    """
    from rich.console import Group
    from rich.text import Text

    from killswitch.operations.board import is_lost

    age = None if board.age is None else board.age + since
    lost = is_lost(age, board.interval)
    now = board.now + timedelta(seconds=since)
    most = 10_000 if height is None else max(2, height // 10)
    lines: list[Text | Table] = list(_head(board, age, now, lost=lost, problem=problem))
    lines += [_line(*each, lost=lost) for each in _cut(list(_waits(board, now, lost=lost)), most * 3)]
    rest: list[Text | Table] = [
        _line(*each, lost=lost)
        for part in (_holds(board, now, lost=lost), _venues(board), _messages(board), _run(board))
        for each in _cut(list(part), most)
    ]
    notes = [(f" {each.scope}: {each.note}", each.tone) for each in board.scopes if each.note]
    below = [_line(*each, lost=lost) for each in _cut(notes, most)]
    room = None if height is None else max(LEAST_SCOPES, height - len(lines) - len(below) - len(rest) - 4)
    shown = len(board.scopes) if room is None else min(room, len(board.scopes))
    lines += [Text(""), _scopes(board, room, width, lost=lost)]
    if shown < len(board.scopes):
        lines.append(Text(f" and {len(board.scopes) - shown} further scopes", style="dim"))
    lines += [*below, Text(""), *rest]
    return Group(*(lines if height is None else lines[:height]))


def _cut(lines: list[tuple[str, Tone]], most: int) -> Iterator[tuple[str, Tone]]:
    """The first lines, and how many more there are: nothing is left out in silence."""
    shown = lines if len(lines) <= most else lines[: most - 1]
    yield from shown
    if len(shown) < len(lines):
        yield f" and {len(lines) - len(shown)} further lines: `ksctl status` shows them", lines[len(shown)][1]


def _head(board: Board, age: float | None, now: datetime, *, lost: bool, problem: str) -> Iterator[Text]:
    """Who acts, how old the data are, and the worst thing of all."""
    from rich.text import Text

    from killswitch.render.formats import duration_text, instant

    old = "no data" if age is None else f"{age:.0f} s old"
    part = f" · {board.part}" if board.part else ""
    yield Text(f"Killswitch  {board.mode}{part}   {old}, as of {instant(board.as_of)}", style="dim")
    if lost:
        why = f": {problem}" if problem else ""
        yield Text(f" LOST: the data are {old}{why}. Nothing below is known to be so any more. ", style="bold reverse")
    headline = board.headline
    lasts = "" if headline.at is None or lost else f", for {duration_text(max(timedelta(), now - headline.at))}"
    was = "Was: " if lost else ""
    yield Text(f" {was}{WORDS[headline.tone]}  {headline.text}{lasts} ", style="dim" if lost else STYLES[headline.tone])
    for text in (headline.detail, "" if headline.tone == "calm" else headline.answer):
        if text:
            yield Text(f" {text}", style="dim" if lost else "")


def _waits(board: Board, now: datetime, *, lost: bool) -> Iterator[tuple[str, Tone]]:
    """What waits for a person, the closes in progress, and what is wrong."""
    from killswitch.render.formats import duration_text, instant

    for firing in board.firings:
        lasts = "" if lost else f", for {duration_text(max(timedelta(), now - firing.at))}"
        yield f" NOT ACKNOWLEDGED: {firing.title} on {firing.scope} ({firing.decision[:12]}{lasts})", "warning"
    for waiting in board.approvals:
        missing = f"{waiting.missing} missing" + (f", given by {', '.join(waiting.given)}" if waiting.given else "")
        yield f" WAITS FOR AN APPROVAL: {waiting.title} ({missing})", "near"
    for it in board.incidents:
        done = "unknown" if it.done is None else str(it.done)
        text = f"{done} of {it.of} at the target, left: {it.left}, orders: {it.orders}"
        yield f" CLOSING {it.scope} on {it.account}: {text} ({it.decision[:12]})", "warning"
    for each in board.troubles:
        begun = "" if each.at is None else f", since {instant(each.at)}"
        yield f" {WORDS[each.tone]}: {each.text}{begun}", each.tone
    for pending in board.pending:
        yield f" PENDING: {pending}: no tick has processed it yet", "near"


def _scopes(board: Board, room: int | None, width: int, *, lost: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=True, width=width, header_style="dim")
    # the word goes with its colour, also where columns are few
    table.add_column("", no_wrap=True, min_width=max(map(len, WORDS.values())))
    for name in ("scope", "policy", "stage", "nearest trigger", "value", "threshold"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for scope in board.scopes[:room]:
        style = "dim" if lost else STYLES[scope.tone]
        bar = nearest(scope)
        trigger = (
            (Text("no trigger"), "", "") if bar is None else (_bar(bar), bar.value, f"{bar.threshold} {_state(bar)}")
        )
        table.add_row(Text(WORDS[scope.tone], style=style), scope.scope, scope.policy, scope.stage, *trigger,
                      style="dim" if lost else "")  # fmt: skip
    return table


def nearest(scope: BoardScope) -> TriggerBar | None:
    """The trigger that a person should see: a true one, else an unknown one, else the nearest to its threshold."""
    order = {"true": 0, "unknown": 1, "near": 2, "clear": 3, "young": 4}
    return min(scope.bars, key=lambda each: (order[each.state], -(each.reached or 0.0)), default=None)


def _bar(bar: TriggerBar) -> Text:
    from rich.text import Text

    if bar.reached is None:
        return Text(f"{'?' * BAR} {bar.name}")
    full = round(bar.reached * BAR)
    return Text(f"{'█' * full}{'░' * (BAR - full)} {bar.name}")


def _state(bar: TriggerBar) -> str:
    return "" if bar.state == "clear" else "short history" if bar.state == "young" else bar.state


def _holds(board: Board, now: datetime, *, lost: bool) -> Iterator[tuple[str, Tone]]:
    """Switches with their countdown, locks with their end, and ways back."""
    from killswitch.render.formats import duration_text, instant

    for it in board.switches:
        left = "" if it.until is None else f", fires in {duration_text(max(timedelta(), it.until - now))}"
        yield f" switch {it.name}: {it.state}{'' if lost else left}; {it.detail}", it.tone
    for lock in board.locks:
        end = lock.end if lock.until is None else f"{lock.end} {instant(lock.until)}"
        yield f" lock {lock.scope}: {lock.mode.replace('_', ' ')}, {end}: {lock.reason}", "warning"
    for scope, progress in board.ways_back:
        yield f" way back {scope}: {progress}", "warning"


def _venues(board: Board) -> Iterator[tuple[str, Tone]]:
    """How much of each venue is read, and why not more."""
    if not board.venues:
        yield " venues: no account was read yet", "calm"
    for each in board.venues:
        streams = f", streams: {each.streams}" if each.streams else ""
        yield f" venue {each.venue}: {each.read} of {each.of} read{streams}", each.tone
        for account in each.accounts:
            if account.why:
                yield f"   {account.account}: {account.why}", "warning"


def _messages(board: Board) -> Iterator[tuple[str, Tone]]:
    """Messages that were given up, wait or are held, and what silences them."""
    from killswitch.render.formats import instant

    for each in board.targets:
        counts = ", ".join(
            f"{count} {what}" for count, what in ((each.given_up, "given up"), (each.pending, "waiting")) if count
        )
        why = f": {each.why}" if each.why else ""
        yield f" messages to {each.target}: {counts}{why}", each.tone
    for silence in board.silences:
        begin = "" if silence.begin is None else f"from {instant(silence.begin)} "
        text = f"{silence.matches} {begin}until {instant(silence.until)} by {silence.author}: {silence.reason}"
        yield f" silenced: {text}", "near"
    for held in board.held:
        yield f" held: {held.title} for {held.receiver}, since {instant(held.since)}: {held.why}", "near"


def _run(board: Board) -> Iterator[tuple[str, Tone]]:
    """The set in force, its source, and the run."""
    for name, value in board.policies:
        yield f" {name}: {value}", "calm"


def _line(text: str, tone: Tone, *, lost: bool) -> Text:
    from rich.text import Text

    return Text(text, style="dim" if lost else STYLES[tone], no_wrap=True, overflow="ellipsis")
