"""Pages of drills: the result of one, what is due, and the trend of all that were kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from killswitch.operations.drills.measures import COMPLETED, DrillResult, Measure, decode_result, encode_result
from killswitch.policy.schema.drill import DrillDocument
from killswitch.render.document import Facts, Page, Section, Table
from killswitch.render.formats import instant, listed, rounded_duration

KEPT = "drills.jsonl"
"""The file of a drill folder with one result a line, the oldest first."""


def keep(folder: Path, result: DrillResult) -> Path:
    """Append the result to the folder's file; return the file. OSError if it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / KEPT
    with path.open("ab") as file:
        file.write(encode_result(result) + b"\n")
    return path


def kept_results(folder: Path) -> tuple[list[DrillResult], int]:
    """Return the results that were kept, the oldest first, and how many lines cannot be read."""
    path = folder / KEPT
    if not path.is_file():
        return [], 0
    found, damaged = [], 0
    for line in path.read_bytes().splitlines():
        try:
            found.append(decode_result(line))
        except msgspec.MsgspecError:
            damaged += 1
    return found, damaged


def result_page(result: DrillResult) -> Page:
    """The page of one drill, which begins with whether it has passed."""
    missed = [each.what for each in result.measures if each.is_met is False]
    unknown = [each.what for each in result.measures if each.is_met is None]
    verdict = "PASSED: every target was met" if result.is_passed else "NOT PASSED"
    if missed:
        verdict += f": missed {listed(missed)}"
    if unknown:
        verdict += f"{';' if missed else ':'} unknown {listed(unknown)}"
    if result.ended != COMPLETED:
        verdict = f"NOT COMPLETED: {result.ended}"
    rows = tuple(
        (each.what, _shown(each.value, each), _shown(each.target, each), _met(each)) for each in result.measures
    )
    return Page(
        f"DRILL {result.drill}",
        Facts((
            ("drill", f"{result.drill}, {result.mode.replace('_', ' ')}, at {instant(result.at)}"),
            ("result", verdict),
            ("crash", "none: a real close was measured" if result.seed is None else f"generated, seed {result.seed}"),
            ("faults", listed(result.faults) if result.faults else "none"),
            ("policies", result.policy_set),
        )),
        sections=(Section("Measures", (Table(("measure", "value", "target", "met"), rows),)),),
    )  # fmt: skip


def _met(measure: Measure) -> str:
    return {True: "yes", False: "NO", None: f"unknown: {measure.why}"}[measure.is_met]


def _shown(value: float | None, measure: Measure) -> str:
    if value is None:
        return "unknown"
    if measure.unit == "fraction":
        return f"{value:.3%}" if measure.what != "closed" else f"{value:.0%}"
    return f"{value:.2f} s"


def due_page(documents: Sequence[DrillDocument], results: Sequence[DrillResult], now: datetime) -> Page:
    """Every drill of the set with its last result, and whether it is due."""
    rows = tuple(_due_row(each, results, now) for each in documents)
    head = ("drill", "mode", "every", "last", "result", "due")
    return Page("Drills", sections=(Section("", (Table(head, rows),)),))


def _due_row(document: DrillDocument, results: Sequence[DrillResult], now: datetime) -> tuple[str, ...]:
    name, spec = document.metadata.name, document.spec
    every = timedelta(microseconds=spec.every)
    last = next((each for each in reversed(results) if each.drill == name), None)
    if last is None:
        return name, spec.mode, rounded_duration(every), "never", "-", "OVERDUE: never run"
    done = next((each for each in reversed(results) if each.drill == name and each.ended == COMPLETED), None)
    due = None if done is None else done.at + every
    when = "OVERDUE: never completed" if due is None else instant(due)
    if due is not None and due <= now:
        when = f"OVERDUE since {instant(due)}"
    return name, spec.mode, rounded_duration(every), instant(last.at), _outcome(last), when


def _outcome(result: DrillResult) -> str:
    return "passed" if result.is_passed else "not completed" if result.ended != COMPLETED else "NOT PASSED"


def trend_page(results: Iterable[DrillResult], damaged: int) -> Page:
    """Every kept drill in a row, the newest first, with its measures next to each other."""
    rows = tuple(_trend_row(each) for each in reversed(list(results)))
    head = ("at", "drill", "result", "decision", "first order", "flat", "notified", "slippage", "worst", "closed")
    warning = f"{damaged} lines of {KEPT} cannot be read, and are not shown" if damaged else ""
    return Page("Trend of drills", warning=warning, sections=(Section("", (Table(head, rows),)),))


_COLUMNS = (
    "time to decision", "time to first order", "time to flat", "time to notification", "average slippage",
    "worst slippage", "closed",
)  # fmt: skip


def _trend_row(result: DrillResult) -> tuple[str, ...]:
    by_name = {each.what: each for each in result.measures}

    def cells() -> Iterator[str]:
        for name in _COLUMNS:
            found = next((each for what, each in by_name.items() if what == name), None)
            mark = "" if found is None or found.is_met is not False else " (missed)"
            yield "-" if found is None else f"{_shown(found.value, found)}{mark}"

    return instant(result.at), result.drill, _outcome(result), *cells()
