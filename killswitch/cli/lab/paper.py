"""`ksctl paper`: a paper venue in a separate process, driven by recorded or generated bars."""

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

from killswitch.cli.options import COUNT, PATH, file_errors, option, verb

if TYPE_CHECKING:
    from killswitch.lab.feed import Feed
    from killswitch.market.paper import PaperMarket
    from killswitch.market.terms import VenueTerms

GROUP = "killswitch.servers"


class Server(Protocol):
    """A started paper server."""

    address: str

    async def until_read(self, times: int) -> None: ...

    async def close(self) -> None: ...


class ServeFunction(Protocol):
    """Type of the entry points in the group `killswitch.servers`."""

    async def __call__(self, market: PaperMarket, *, port: int, now: Callable[[], datetime]) -> Server: ...


@verb("ksctl paper --crash 7 --speed 60 --port 8701")
@click.option("--market", type=PATH, help="Folder of bars, one file per symbol.")
@click.option("--crash", type=COUNT, metavar="SEED", help="A generated crash instead; each seed gives another one.")
@click.option("--book", type=PATH, help="Positions of the accounts. Default with --crash: those of the demo.")
@option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; 0 chooses a free one.")
@option("--speed", type=click.FloatRange(min=0), default=1.0,
        help="Speed of the bars as a multiple of real time; 0: the market stays at its first bar.")  # fmt: skip
@option("--skip", type=COUNT, default=0, help="Bars to skip; the book opens at the close of the next one.")
@option("--begin-after-readings", "readings", type=COUNT, default=0, metavar="N",
        help="Start the market after N reads of accounts, so that a slow client misses no bar.")  # fmt: skip
@click.option("--terms", type=PATH, help="Terms of the venue: request limits, batches, strictness. Default: plain.")
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

    The first line of stdout is the address. Bars get the present time in place of their dates. After the last bar,
    prices stay constant and there is no further liquidity.
    """
    if (market is None) == (crash is None):
        raise click.UsageError("Give either --market DIR or --crash SEED.")
    if market is not None and book is None:
        raise click.UsageError("--market needs --book FILE.")
    from killswitch.lab.bars import read_market
    from killswitch.lab.book import demo_book, read_book
    from killswitch.lab.crash import crash_bars
    from killswitch.lab.feed import Feed

    venue_terms = _terms(terms)
    bars = read_market(market) if market is not None else crash_bars(crash or 0)
    try:
        feed = Feed(bars, demo_book() if book is None else read_book(book), seed=0, skip=skip, begins=_now())
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    feed.market.agree(venue_terms)
    with file_errors(f"cannot serve on port {port}, name another one with --port"):
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
    """Wait for the first of these to finish and cancel the others."""
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
            last = feed.market.now  # a bar follows it even if the wall clock moved back
            feed.step(max(_now(), last + timedelta(microseconds=1)) if last else _now())


def _now() -> datetime:
    return datetime.now(UTC)


def _server() -> ServeFunction:
    """The paper server, found by entry point: the core imports no adapter by name."""
    for entry in entry_points(group=GROUP, name="paper"):
        serve: ServeFunction = entry.load()
        return serve
    raise click.ClickException(f"no paper server is installed (entry-point group {GROUP})")
