"""`ksctl paper`: a paper venue in a process of its own, moved by real or generated bars."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from killswitch.cli.options import file_errors, verb

if TYPE_CHECKING:
    from killswitch.lab.feed import Feed
    from killswitch.market.paper import PaperMarket
    from killswitch.market.terms import VenueTerms

GROUP = "killswitch.servers"


class Server(Protocol):
    """What `serve` gives back."""

    address: str

    async def until_read(self, times: int) -> None: ...

    async def close(self) -> None: ...


class ServeFunction(Protocol):
    """What the entry-point group `killswitch.servers` names."""

    async def __call__(self, market: PaperMarket, *, port: int, now: Callable[[], datetime]) -> Server: ...


@verb("ksctl paper --crash 7 --speed 60 --port 8701")
@click.option("--market", type=click.Path(path_type=Path), help="A folder of bars, one file a symbol.")
@click.option("--crash", type=click.IntRange(min=0), metavar="SEED",
              help="A generated crash instead; each seed is another one.")  # fmt: skip
@click.option(
    "--book", type=click.Path(path_type=Path), help="What the accounts hold. Left out with --crash: the demo's."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True,
              help="On 127.0.0.1; 0 chooses a free one.")  # fmt: skip
@click.option("--speed", type=click.FloatRange(min=0), default=1.0, show_default=True,
              help="How many times faster than their own time bars go by; 0: the market stands still.")  # fmt: skip
@click.option("--skip", type=click.IntRange(min=0), default=0, show_default=True,
              help="Bars to leave out; the book is opened at the close of the next one.")  # fmt: skip
@click.option(
    "--begin-after-readings", "readings", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="The market stands until accounts were read N times: however long a reader takes to start, it misses no bar.",
)  # fmt: skip
@click.option(
    "--terms", type=click.Path(path_type=Path),
    help="What the venue is like: its request limits, its batches, what it is strict about. Left out: plain.",
)  # fmt: skip
def paper(
    market: Path | None,
    crash: int | None,
    book: Path | None,
    port: int,
    speed: float,
    skip: int,
    readings: int,
    terms: Path | None,
) -> None:
    """Serve a paper venue on loopback until SIGTERM or SIGINT.

    The address goes to stdout as the first line. The bars' own dates are replaced by now: what is seen is seen now.
    When the bars are used up the prices stand, with nothing left to trade with.
    """
    if (market is None) == (crash is None):
        raise click.UsageError("Give either --market DIR or --crash SEED.")
    if market is not None and book is None:
        raise click.UsageError("--market needs --book FILE.")
    from killswitch.lab.bars import read_market
    from killswitch.lab.book import demo_book, read_book
    from killswitch.lab.crash import crash_bars
    from killswitch.lab.feed import Feed

    agreed = _terms(terms)
    bars = read_market(market) if market is not None else crash_bars(crash or 0)
    try:
        feed = Feed(bars, demo_book() if book is None else read_book(book), seed=0, skip=skip, begins=_now())
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    feed.market.agree(agreed)
    with file_errors(f"cannot serve on port {port}"):
        asyncio.run(_serve(feed, port, speed, readings))


def _terms(path: Path | None) -> VenueTerms:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    from killswitch.market.terms import VenueTerms, read_terms

    if path is None:
        return VenueTerms()
    try:
        with file_errors(str(path)):
            return read_terms(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))
    except (YAMLError, ValueError) as error:
        raise click.ClickException(f"{path}: {error}") from error


async def _serve(feed: Feed, port: int, speed: float, readings: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await _server()(feed.market, port=port, now=_now)
    try:
        click.echo(server.address)
        sys.stdout.flush()
        await _first(stop.wait(), server.until_read(readings))
        await _drive(feed, speed, stop)
    finally:
        await server.close()


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Until the first of these is over; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _drive(feed: Feed, speed: float, stop: asyncio.Event) -> None:
    """Close a bar after each of its intervals, divided by `speed`, until `stop` is set."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while not stop.is_set():
        pause = None
        if speed > 0 and feed.due is not None:
            due += feed.interval.total_seconds() / speed
            pause = max(0.0, due - loop.time())
        try:
            await asyncio.wait_for(stop.wait(), pause)
        except TimeoutError:
            feed.step(_later(feed))


def _later(feed: Feed) -> datetime:
    """Now, or just after the last bar where the wall clock has been put back."""
    last = feed.market.now
    return max(_now(), last + timedelta(microseconds=1)) if last else _now()


def _now() -> datetime:
    return datetime.now(UTC)


def _server() -> ServeFunction:
    """The paper server, found as adapters are: the core imports none of them by name."""
    for entry in entry_points(group=GROUP, name="paper"):
        serve: ServeFunction = entry.load()
        return serve
    raise click.ClickException(f"no paper server is installed (entry-point group {GROUP})")
