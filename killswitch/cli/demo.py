"""`ksctl demo`: the main job through a crash, on the embedded paper venue, in virtual time."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import click

FOLDER = Path("demo-run")


@click.command()
@click.option("--market", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of real bars; without it, a generated crash.")  # fmt: skip
@click.option("--book", "book_at", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="What the account holds; without it, eight of the market's symbols, long and short.")  # fmt: skip
@click.option("--policies", "policies_at", type=click.Path(exists=True, path_type=Path),
              help="Policies to run; without it, the shipped futures-drawdown.")  # fmt: skip
@click.option("--seed", type=int, default=7, show_default=True, help="Of the generated crash and the paper venue.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=FOLDER, show_default=True,
              help="For the store, the lock and the recording; an earlier demo's is emptied first.")  # fmt: skip
@click.option("--pace", type=click.FloatRange(min=0), default=0.15, show_default=True,
              help="Seconds to pause after each line of news; 0 is as fast as it goes.")  # fmt: skip
def demo(
    market: Path | None, book_at: Path | None, policies_at: Path | None, seed: int, folder: Path, pace: float
) -> None:
    """Run the policies through a crash and show what happens, as it happens."""
    from killswitch.cli.demo_report import compare
    from killswitch.cli.demo_run import bars_and_book, excerpt, run_demo
    from killswitch.cli.demo_screen import Screen
    from killswitch.cli.session import written
    from killswitch.content import policies_folder
    from killswitch.lab.bars import BarsError
    from killswitch.lab.book import BookError

    found = written([policies_at or policies_folder() / "futures-drawdown"])
    try:
        bars, book = bars_and_book(market, book_at, seed)
    except (BarsError, BookError) as error:
        raise click.ClickException(str(error)) from error
    _make_room(folder)
    screen = Screen(pace)
    try:
        asyncio.run(run_demo(found, bars, book, seed, folder, screen))
        compare(found.policies, bars, book, excerpt(bars, book), seed, folder)
    except (BarsError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _make_room(folder: Path) -> None:
    """An empty folder. One that no demo made is left alone."""
    marker = folder / ".ksctl-demo"
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            raise click.ClickException(f"{folder} is not empty and no earlier demo made it: name another --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text("made by ksctl demo; emptied by the next one\n", encoding="utf-8")
