"""Results of the parts of the page: kept as JSON, so that one part can be made again, and what changed on the page.

The page is a function of the results in tests/evidence/results/: a test compares it with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from statistics import mean, quantiles

import msgspec
from msgspec import Struct

from killswitch.gate.files import replace_file
from killswitch.lab.outcome import Run
from killswitch.render.document import Table, table_lines

RESULTS = Path(__file__).resolve().parent / "results"
DRAWS = 2000
"""Bootstrap samples."""
Z = 1.959964
"""The 97.5th percentile of the normal distribution."""


class PageTable(Struct, frozen=True):
    """A table of the page, as its cells are printed. The first `words` columns are text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1

    def lines(self) -> Iterator[str]:
        """The table as Markdown, and an empty line."""
        yield from table_lines(Table(self.head, self.rows, numbers=tuple(range(self.words, len(self.head)))))
        yield ""


class PartResult(Struct, frozen=True):
    """What a part found. `numbers`: for the sentences and verdicts of the page, by name; fractions and counts.

    `notes`: sentences about what was run and what could not be.
    """

    part: str
    command: str
    date: str
    tables: dict[str, PageTable]
    numbers: dict[str, float]
    notes: dict[str, str]


def write_result(result: PartResult, folder: Path = RESULTS) -> None:
    """Keep the result of a part."""
    folder.mkdir(exist_ok=True)
    found = msgspec.json.format(msgspec.json.encode(result, order="sorted"), indent=1)
    replace_file(folder / f"{result.part}.json", found + b"\n")


def read_results(folder: Path = RESULTS) -> dict[str, PartResult]:
    """The results by part; FileNotFoundError's empty answer where none was kept."""
    files = sorted(folder.glob("*.json"))
    return {path.stem: msgspec.json.decode(path.read_bytes(), type=PartResult) for path in files}


# -- figures -----------------------------------------------------------------------------------------------------


def percent(value: Decimal | float | None, places: int = 1) -> str:
    """A fraction as a percentage; `-` where there is none."""
    return "-" if value is None else f"{value:.{places}%}"


def falls(runs: Sequence[Run]) -> list[float]:
    """The worst drawdown of each run."""
    return [float(run.worst_drawdown) for run in runs]


def highest_twentieth(values: Sequence[float]) -> float:
    """The 95th percentile, with the ends included."""
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson, Journal of the American Statistical Association 22, 1927).

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) ÷ (1 + z²/n); (0, 1) of nothing.
    """
    if of == 0:
        return 0.0, 1.0
    share, square = hits / of, Z * Z / of
    middle, half = share + square / 2, Z * math.sqrt(share * (1 - share) / of + square / (4 * of))
    low, high = (middle - half) / (1 + square), (middle + half) / (1 + square)
    return (0.0 if hits == 0 else low), (1.0 if hits == of else high)


def share_text(hits: int, of: int) -> str:
    """A share with its Wilson interval: `6% (2 to 16)`."""
    low, high = wilson(hits, of)
    return "-" if of == 0 else f"{hits / of:.0%} ({100 * low:.0f} to {100 * high:.0f})"


def bootstrap(values: Sequence[float], seed: int) -> tuple[float, float]:
    """The 95% percentile interval of the mean, of DRAWS seeded resamples (Efron, Annals of Statistics 7, 1979)."""
    rng = Random(f"{seed}/{len(values)}")
    means = sorted(mean(rng.choices(values, k=len(values))) for _ in range(DRAWS))
    return means[round(0.025 * (DRAWS - 1))], means[round(0.975 * (DRAWS - 1))]


def interval_text(values: Sequence[float], seed: int) -> str:
    """The bootstrap interval of a mean: `11.6 to 13.9%`."""
    low, high = bootstrap(values, seed)
    return f"{100 * low:.1f} to {100 * high:.1f}%"


# -- what changed ------------------------------------------------------------------------------------------------


def changes(before: str, after: str) -> list[str]:
    """What differs between two pages: cells by heading, row and column; then rows and lines of text.

    A row is known by its words before the first number; of equal ones, by its place.
    """
    old, new = _rows(before), _rows(after)
    found = [f"gone: {' | '.join(key)}" for key in old.keys() - new.keys()]
    found += [f"new: {' | '.join(key)}" for key in new.keys() - old.keys()]
    for key in old.keys() & new.keys():
        for column in old[key].keys() | new[key].keys():
            was, now = old[key].get(column, ""), new[key].get(column, "")
            if was != now:
                found.append(f"{' | '.join(key)} | {column}: {was} → {now}")
    prose = {line for line in before.splitlines() if not line.startswith("|")}
    found += [f"text: {line}" for line in after.splitlines() if line and not line.startswith("|") and line not in prose]
    return sorted(found)


def _rows(page: str) -> dict[tuple[str, ...], dict[str, str]]:
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    heading, head, words = "", [""], 1
    for line in page.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            head = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not head:
            head = [f"{name} {number}" if name in cells[:number] else name for number, name in enumerate(cells)]
        elif set(line) <= set("|-: "):
            words = sum(not cell.endswith(":") for cell in cells)
        else:
            key = (heading, *cells[:words])
            while key in rows:
                key = (*key, "again")
            rows[key] = dict(zip(head[words:], cells[words:], strict=False))
    return rows
