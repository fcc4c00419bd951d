"""`ksctl market`: bars for `backtest` from the public history of a venue."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from killswitch.cli import EXIT_FAILED, completion, options
from killswitch.cli.terminal import (
    ProgressLines,
    print_json,
    print_note,
    print_page,
    progress_bars,
    terminal_width,
)
from killswitch.render.document import Items, Page, Section, Table
from killswitch.render.formats import count_of, instant

if TYPE_CHECKING:
    from killswitch.lab.fetching import FetchResult
    from killswitch.model.inspection import BarHistory


def _milliseconds(text: str) -> int:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a date: write 2021-05-19 or 2021-05-19T12:00:00Z") from None
    return int((found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp() * 1000)


INSTANT = options.ParsedParam("instant", _milliseconds)
"""An ISO 8601 date or time, UTC unless it names a zone, as milliseconds since the epoch."""
LINE_EVERY = 30.0
"""Seconds between two progress lines."""

_FETCH_EXAMPLE = (
    "ksctl market fetch binanceusdm BTC/USDT:USDT ETH/USDT:USDT --from 2025-10-10 --to 2025-10-12 --out bars/"
)


@click.group(epilog=options.example_text(_FETCH_EXAMPLE))
def market() -> None:
    """Bars for backtests from the public history of a venue."""


@options.verb(_FETCH_EXAMPLE, group=market)
@click.argument("venue", shell_complete=completion.venues)
@click.argument("symbols", metavar="SYMBOL…", nargs=-1, required=True)
@click.option("--from", "begins", type=INSTANT, required=True, help="Start of the bars (UTC).")
@click.option("--to", "ends", type=INSTANT, help="End of the bars (UTC). Default: now.")
@options.option("--timeframe", default="1m", metavar="TIMEFRAME",
                help="Length of a bar: 1m, 5m, 1h, 1d, 1w, if the venue has it.")  # fmt: skip
@click.option("--out", type=options.OUT_FOLDER, required=True, help="Folder of the market, one file per symbol.")
@click.option("--endpoint", metavar="URL", help="Address in place of the default of the venue.")
@options.output
def fetch(
    venue: str, symbols: tuple[str, ...], begins: int, ends: int | None, timeframe: str, out: Path,
    endpoint: str | None, output: str,
) -> int:  # fmt: skip
    """Fetch bars of a venue into a folder for `backtest --market`. Needs no key.

    SYMBOL has the spelling of snapshots, such as BTC/USDT:USDT; its file is BTC_USDT_USDT.csv, and books use that name.
    An incomplete bar is not written. Missing bars of the venue remain a gap and are counted.

    A repeated fetch requests the missing bars only and resumes an interrupted fetch. An earlier --from or a later --to
    extends the file without a gap.
    """
    from killswitch.accounts.plug_ins import NoSuchVenueError, load_plug_ins
    from killswitch.lab.bar_files import file_stem
    from killswitch.lab.fetching import milliseconds

    try:
        milliseconds(timeframe)
    except ValueError as error:
        raise click.UsageError(f"--timeframe: {error}") from error
    ends = int(datetime.now(UTC).timestamp() * 1000) if ends is None else ends
    if begins >= ends:
        raise click.UsageError("--from must be before --to, and both before now")
    twice = sorted({a for a in symbols for b in symbols if a != b and file_stem(a) == file_stem(b)})
    if twice:
        raise click.UsageError(f"{', '.join(twice)} would share one file: fetch them into two folders")
    try:
        history = load_plug_ins().history(venue, endpoint)
    except NoSuchVenueError:
        raise
    except Exception as error:  # third-party code: any error is about this venue or this endpoint
        raise click.ClickException(f"{venue} cannot be reached: {error}") from error
    job = _FetchJob(venue, tuple(dict.fromkeys(symbols)), begins, ends, timeframe, out, endpoint)
    try:
        done, failed = asyncio.run(_fetch(history, job))
    except OSError as error:
        raise click.ClickException(str(error)) from error
    if output == "json":
        print_json(_answer(job, done, failed))
    elif done:
        print_page(_page(job, done))
    for each in failed:
        print_note(f"Error: {each}")
    return EXIT_FAILED if failed else 0


class _FetchJob(Struct, frozen=True):
    """Arguments of a fetch."""

    venue: str
    symbols: Sequence[str]
    begins: int
    ends: int
    timeframe: str
    out: Path
    endpoint: str | None


async def _fetch(history: BarHistory, job: _FetchJob) -> tuple[list[FetchResult], list[str]]:
    """Fetch one symbol after another; a failed symbol does not stop the others."""
    from killswitch.lab.bar_files import BarOrigin, FetchError
    from killswitch.lab.fetching import Fetch
    from killswitch.runner.clock import SystemClock

    done: list[FetchResult] = []
    failed: list[str] = []
    async with AsyncExitStack() as stack:
        stack.push_async_callback(history.close)
        with _progress(job) as (on_progress, warn):
            for symbol in job.symbols:
                origin = BarOrigin(job.venue, symbol, job.timeframe, _without_query(job.endpoint))
                task = Fetch(history, origin, job.out, SystemClock(), partial(on_progress, symbol), warn)
                try:
                    done.append(await task.run(job.begins, job.ends))
                except FetchError as error:
                    failed.append(str(error))
                except OSError:
                    raise
                except Exception as error:  # noqa: BLE001 - a defect of the adapter fails one symbol
                    failed.append(f"{symbol}: the adapter failed: {type(error).__name__}: {error}")
    return done, failed


def _without_query(endpoint: str | None) -> str | None:
    """The address without its query, which contains the token of some services."""
    if endpoint is None:
        return None
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(endpoint)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def _progress(job: _FetchJob) -> Iterator[tuple[Callable[[str, int], None], Callable[[str], None]]]:
    """(report the progress of a symbol, print a warning): bars on a terminal, otherwise periodic lines, on stderr."""
    duration = job.ends - job.begins
    if terminal_width(sys.stderr) is None:
        lines = ProgressLines(LINE_EVERY)

        def print_progress(symbol: str, at: int) -> None:
            done = max(0, min(at, job.ends) - job.begins)
            lines.print_due(f"{symbol}: fetched to {_at(min(at, job.ends))}, {done / duration:.0%}")

        yield print_progress, print_note
        return
    from rich.progress import TaskProgressColumn

    with progress_bars(TaskProgressColumn()) as bar:
        tasks = {symbol: bar.add_task(symbol, total=duration, start=False) for symbol in job.symbols}

        def move_bar(symbol: str, at: int) -> None:
            bar.start_task(tasks[symbol])
            bar.update(tasks[symbol], completed=max(0, min(at, job.ends) - job.begins))

        yield move_bar, lambda text: bar.console.print(text, markup=False)


def _page(job: _FetchJob, done: Sequence[FetchResult]) -> Page:
    rows = [
        (
            each.symbol, f"{each.bars:,}", f"{each.new:,}", _at(each.first), _at(each.last),
            "none" if not each.gaps else f"{each.gaps:,} ({count_of(each.missing, 'bar')})", str(each.requests),
        )
        for each in done
    ]  # fmt: skip
    head = ("symbol", "bars", "new", "first", "last", "gaps", "requests")
    remarks = [f"{each.symbol}: {remark}" for each in done for remark in _remarks(each)]
    parts = (Table(head, tuple(rows)), Items(tuple(remarks)))
    return Page("Bars", sections=(Section(f"{job.venue}, {job.timeframe}, in {job.out}", parts),))


def _remarks(each: FetchResult) -> Iterator[str]:
    if each.before:
        yield f"the venue has no data for the first {count_of(each.before, 'bar')} from --from on"
    if each.after:
        bars = count_of(each.after, "bar")
        yield f"the venue has no data for the last {bars} before --to; a repeated fetch requests them again"
    if each.left_out_count:
        count = count_of(each.left_out_count, "bar")
        more = ", …" if each.left_out_count > len(each.left_out) else ""
        yield f"{count} from the venue invalid and left out: {'; '.join(each.left_out)}{more}"


def _answer(job: _FetchJob, done: Sequence[FetchResult], failed: Sequence[str]) -> dict[str, object]:
    from killswitch.lab.bar_files import file_stem

    return {
        "venue": job.venue,
        "timeframe": job.timeframe,
        "out": str(job.out),
        "symbols": [
            {
                "symbol": each.symbol, "file": f"{file_stem(each.symbol)}.csv", "bars": each.bars, "new": each.new,
                "first": _at(each.first), "last": _at(each.last), "gaps": each.gaps, "missing": each.missing,
                "before": each.before, "after": each.after,
                "left_out": each.left_out_count, "requests": each.requests,
            }
            for each in done
        ],
        "failed": list(failed),
    }  # fmt: skip


def _at(ms: int | None) -> str:
    return instant(None if ms is None else datetime.fromtimestamp(ms / 1000, UTC))
