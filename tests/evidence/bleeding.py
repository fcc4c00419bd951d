"""The guards against a slow bleed against the plain rule, over every folder of bars and a generated steady bleed.

    python -m tests.evidence.bleeding [--random 2] [--seed 7] [--market NAME]

Prints Markdown tables. The bars are in $KILLSWITCH_SHARED/data/market. The plain rule closes everything at 5% below
the highest of 48 hours. `published, no gate` is the published set without the side gate of its layer L2, which no book
of these folders could open: they hold no watched market.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from killswitch.cli.lab.backtest_books import BacktestOptions, market_folders, panel_of
from killswitch.cli.lab.backtest_books import load_books as books_of
from killswitch.graph.nodes import PolicySet
from killswitch.lab.bars import BarTable
from killswitch.lab.outcome import Run
from killswitch.lab.price_matrix import PriceMatrix
from tests.backtests import BEGINS, MINUTE, POLICIES, book, run, series, written

PLAIN = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: plain}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers: {fall: {signal: equity.drawdown, window: 48h, at_least: 5%, on_unknown: hold, grace: 49h}}
  stages:
    - name: close-all
      level: 1
      any: [fall]
      cooldown: 12h
      reset: manual
      actions: [{lock_trading: {mode: reduce_only}}, {close: {side: both, fraction: 100%}}]
"""
QUIET = 50 * 60
"""Minutes of a still market before the bleed, which is longer than every window but that of the gate."""
LASTS = 12 * 60
FALL_AN_HOUR = 0.04
"""Of the capital, which the position is as large as."""


def rules() -> dict[str, PolicySet]:
    """The plain rule and the sets that are compared with it, by label."""
    published = (POLICIES / "slow-bleed-published" / "policy.yaml").read_text(encoding="utf-8")
    ungated, gates = re.subn(r"all: \[fall-48h, side-gate\]", "any: [fall-48h]", published)
    if gates != 1:
        raise ValueError("the published set has no side gate to leave out")
    return {
        "plain": written(PLAIN),
        "slow-bleed": written((POLICIES / "slow-bleed" / "policy.yaml").read_text(encoding="utf-8")),
        "published": written(published),
        "published, no gate": written(ungated),
    }


def bleed(noise: float, begins: int = 0) -> PriceMatrix:
    """A market that moves by `noise` up and down each minute, and then falls by 4% of its first price an hour.

    `begins`: minutes after the UTC midnight at which the fall begins.
    """
    quiet = [100 * (1 + noise * (number % 2)) for number in range(QUIET)]
    fall = [100 * (1 + noise * (n % 2) - FALL_AN_HOUR * n / 60) for n in range(1, LASTS + 1)]
    first = (begins - QUIET - BEGINS // MINUTE) % (24 * 60)
    minutes = [first + number for number in range(QUIET + LASTS)]
    return PriceMatrix(BarTable("bleed", [series("A", [*quiet, *fall], minutes)]))


def first_close(found: Run, bars: PriceMatrix) -> str:
    """When the first close was, in minutes since the fall began, and what had been lost."""
    closing = [each for each in found.firings if each.closed]
    if not closing:
        return "never"
    minutes = (closing[0].at.timestamp() * 1e6 - bars.at[QUIET - 1]) / MINUTE
    return f"{closing[0].stage} after {minutes:.0f} min, at −{found.worst_drawdown:.1%}"


def bleeds(tested: Mapping[str, PolicySet]) -> Iterator[tuple[str, ...]]:
    """A row for each generated bleed."""
    worlds = {
        "still (0.01% a minute), from 12:00Z": (0.0001, 12 * 60),
        "still (0.01% a minute), from 22:45Z": (0.0001, 22 * 60 + 45),
    }
    for name, world in worlds.items():
        bars = bleed(*world)
        yield (name, *(first_close(run(each, bars, book({"A": 100_000})), bars) for each in tested.values()))


def crashes(
    tested: Mapping[str, PolicySet], folders: Sequence[Path], random: int, seed: int
) -> Iterator[tuple[str, ...]]:
    """A row for each folder and gross: worst drawdown and final equity, means over its books."""
    for folder in folders:
        bars = panel_of(folder)
        for gross in (Decimal(3), Decimal(1)):
            made = books_of(BacktestOptions((folder,), None, None, None, None, random, gross, seed)).parts
            cells = []
            for label, policies in (("none", tested["plain"]), *tested.items()):
                runs = [run(policies, bars, part.member.book, "none" if label == "none" else "staged") for part in made]
                fall = sum(each.worst_drawdown for each in runs) / len(runs)
                left = sum(each.final_equity / each.start_equity for each in runs) / len(runs)
                fired = sum(any(firing.closed for firing in each.firings) for each in runs)
                cells.append(f"{fall:.1%} / {left:.1%}" + ("" if label == "none" else f" / {fired} of {len(runs)}"))
            yield (folder.name, str(gross), *cells)


def table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def main(arguments: list[str]) -> int:
    """Print both tables; 1 where there are no bars."""
    parser = argparse.ArgumentParser(prog="python -m tests.evidence.bleeding", description=__doc__)
    parser.add_argument("--random", type=int, default=2, help="random books of each kind in each market")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--market", default="", help="only the folders whose name contains this")
    options = parser.parse_args(arguments)
    shared = Path(os.environ.get("KILLSWITCH_SHARED") or POLICIES.parent.parent / "shared")
    markets = shared / "data" / "market"
    if not markets.is_dir():
        sys.stderr.write("no bars: set KILLSWITCH_SHARED to a folder with data/market in it\n")
        return 1
    tested = rules()
    folders = [each for each in market_folders(markets) if options.market in each.name]
    for line in table(("steady bleed", *tested), bleeds(tested)):
        print(line, flush=True)
    print()
    head = ("bars (worst drawdown / final equity / books closed)", "gross", "none", *tested)
    for line in table(head, crashes(tested, folders, options.random, options.seed)):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
