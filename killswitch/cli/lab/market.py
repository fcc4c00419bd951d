"""`ksctl market`: bars for `backtest` from the public history of a venue."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_FAILED, completion, options
from killswitch.cli.terminal import ProgressLines, mention, progress_bars, room, show, show_json, table
from killswitch.render.formats import counted, instant

if TYPE_CHECKING:
    from killswitch.lab.fetching import Fetched
    from killswitch.model.inspection import BarHistory


def _milliseconds(text: str) -> int:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a date: write 2021-05-19 or 2021-05-19T12:00:00Z") from None
    return int((found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp() * 1000)


INSTANT = options.Parsed("instant", _milliseconds)
"""An ISO 8601 date or time, UTC unless it names a zone, as milliseconds since the epoch."""
LINE_EVERY = 30.0
"""Seconds between two progress lines."""


@click.group()
def market() -> None:
    """Bars for backtests from the public history of a venue."""


@options.verb(
    "ksctl market fetch binanceusdm BTC/USDT:USDT ETH/USDT:USDT --from 2025-10-10 --to 2025-10-12 --out bars/",
    group=market,
)
@click.argument("venue", shell_complete=completion.venues)
@click.argument("symbols", metavar="SYMBOL…", nargs=-1, required=True)
@click.option("--from", "begins", type=INSTANT, required=True, help="Start of the bars (UTC).")
@click.option("--to", "ends", type=INSTANT, help="End of the bars (UTC). Default: now.")
@click.option("--timeframe", default="1m", show_default=True, metavar="TIMEFRAME",
              help="Length of a bar: 1m, 5m, 1h, 1d, 1w, if the venue has it.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True,
              help="Folder of the market, one file per symbol.")  # fmt: skip
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
    from killswitch.accounts.plug_ins import NoSuchVenueError, families
    from killswitch.lab.fetched import stem
    from killswitch.lab.fetching import milliseconds

    try:
        milliseconds(timeframe)
    except ValueError as error:
        raise click.UsageError(f"--timeframe: {error}") from error
    ends = int(datetime.now(UTC).timestamp() * 1000) if ends is None else ends
    if begins >= ends:
        raise click.UsageError("--from must be before --to, and both before now")
    twice = sorted({a for a in symbols for b in symbols if a != b and stem(a) == stem(b)})
    if twice:
        raise click.UsageError(f"{', '.join(twice)} would share one file: fetch them into two folders")
    try:
        history = families().history(venue, endpoint)
    except NoSuchVenueError:
        raise
    except Exception as error:  # third-party code: any error is about this venue or this endpoint
        raise click.ClickException(f"{venue} cannot be reached: {error}") from error
    job = _Job(venue, tuple(dict.fromkeys(symbols)), begins, ends, timeframe, out, endpoint)
    try:
        done, failed = asyncio.run(_fetch(history, job))
    except OSError as error:
        raise click.ClickException(str(error)) from error
    if output == "json":
        show_json(_answer(job, done, failed))
    elif done:
        show(_text(job, done))
    for each in failed:
        mention(f"Error: {each}")
    return EXIT_FAILED if failed else 0


@dataclass(frozen=True, slots=True)
class _Job:
    """Arguments of a fetch."""

    venue: str
    symbols: Sequence[str]
    begins: int
    ends: int
    timeframe: str
    out: Path
    endpoint: str | None


async def _fetch(history: BarHistory, job: _Job) -> tuple[list[Fetched], list[str]]:
    """Fetch one symbol after another; a failed symbol does not stop the others."""
    from killswitch.lab.fetched import FetchError, Whose
    from killswitch.lab.fetching import Fetch
    from killswitch.runner.clock import SystemClock

    done: list[Fetched] = []
    failed: list[str] = []
    async with AsyncExitStack() as stack:
        stack.push_async_callback(history.close)
        with _progress(job) as (tell, warn):
            for symbol in job.symbols:
                whose = Whose(job.venue, symbol, job.timeframe, _plain(job.endpoint))
                work = Fetch(history, whose, job.out, SystemClock(), partial(tell, symbol), warn)
                try:
                    done.append(await work.run(job.begins, job.ends))
                except FetchError as error:
                    failed.append(str(error))
                except OSError:
                    raise
                except Exception as error:  # noqa: BLE001 - a defect of the adapter fails one symbol
                    failed.append(f"{symbol}: the adapter failed: {type(error).__name__}: {error}")
    return done, failed


def _plain(endpoint: str | None) -> str | None:
    """The address without its query, which contains the token of some services."""
    if endpoint is None:
        return None
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(endpoint)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def _progress(job: _Job) -> Iterator[tuple[Callable[[str, int], None], Callable[[str], None]]]:
    """(report the progress of a symbol, print a warning): bars on a terminal, otherwise periodic lines, on stderr."""
    whole = job.ends - job.begins
    if room(sys.stderr) is None:
        lines = ProgressLines(LINE_EVERY)

        def say(symbol: str, at: int) -> None:
            done = max(0, min(at, job.ends) - job.begins)
            lines.say(f"{symbol}: fetched to {_at(min(at, job.ends))}, {done / whole:.0%}")

        yield say, mention
        return
    from rich.progress import TaskProgressColumn

    with progress_bars(TaskProgressColumn()) as bar:
        tasks = {symbol: bar.add_task(symbol, total=whole, start=False) for symbol in job.symbols}

        def move(symbol: str, at: int) -> None:
            bar.start_task(tasks[symbol])
            bar.update(tasks[symbol], completed=max(0, min(at, job.ends) - job.begins))

        yield move, lambda text: bar.console.print(text, markup=False)


def _text(job: _Job, done: Sequence[Fetched]) -> str:
    rows = [
        (
            each.symbol, f"{each.bars:,}", f"{each.new:,}", _at(each.first), _at(each.last),
            "none" if not each.gaps else f"{each.gaps:,} ({each.missing:,} bars)", str(each.requests),
        )
        for each in done
    ]  # fmt: skip
    lines = []
    if rows:
        lines.append(f"{job.venue}, {job.timeframe}, in {job.out}")
        lines.append(table(("symbol", "bars", "new", "first", "last", "gaps", "requests"), rows))
    lines += [f"{each.symbol}: {words}" for each in done for words in (*_short(each), *_left_out(each))]
    return "\n".join(lines)


def _short(each: Fetched) -> Iterator[str]:
    if each.before:
        yield f"the venue has no data for the first {counted(each.before, 'bar')} from --from on"
    if each.after:
        bars = counted(each.after, "bar")
        yield f"the venue has no data for the last {bars} before --to; a repeated fetch asks again"


def _left_out(each: Fetched) -> Iterator[str]:
    if each.left_out_count:
        count = counted(each.left_out_count, "bar")
        more = ", …" if each.left_out_count > len(each.left_out) else ""
        yield f"{count} from the venue invalid and left out: {'; '.join(each.left_out)}{more}"


def _answer(job: _Job, done: Sequence[Fetched], failed: Sequence[str]) -> dict[str, object]:
    from killswitch.lab.fetched import stem

    return {
        "venue": job.venue,
        "timeframe": job.timeframe,
        "out": str(job.out),
        "symbols": [
            {
                "symbol": each.symbol, "file": f"{stem(each.symbol)}.csv", "bars": each.bars, "new": each.new,
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
