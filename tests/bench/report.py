"""A report with 200 orders, in Markdown and as a page with its charts, from a store on disk; promised within a second.

A run renders the report again at every change, so it is measured warm. The first one of a process also imports the
plotting library, which is most of the time of `ksctl report --format html`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.document import Incident
from killswitch.incident.record.incident_decisions import find_incident
from killswitch.incident.report.rendering import equity_figure, report
from killswitch.store.sqlite import open_store
from tests import incidents
from tests.bench.measure import Measure, best_of
from tests.incidents import FIRST, FilledStore, entry, filled_store, rows
from tests.worlds import after

ORDERS, ROUNDS = 200, 5
PROMISED = 1.0
"""Seconds."""

_CLOCK = "import sys; from time import perf_counter; begun = perf_counter(); {}; print(perf_counter() - begun)"
_FIRST_REPORT = _CLOCK.format("from tests.bench.report import render_report; render_report(sys.argv[1])")
_IMPORTING = _CLOCK.format("import matplotlib.figure, matplotlib.backends.backend_svg, sqlalchemy, jinja2")


def measures() -> Iterator[Measure]:
    """The promises: under a second; and the first report of a process costs little more than its imports."""
    with TemporaryDirectory() as folder:
        written = filled_store(Path(folder))
        _fill(written)
        written.store.close()
        path = str(written.path)
        incident = render_report(path)
        _check(incident)
        best, drawn = best_of(ROUNDS, lambda: render_report(path), lambda: equity_figure(incident))
        yield Measure(f"a report of {ORDERS} orders", best * 1e3, PROMISED * 1e3, "promised", 1.0)
        yield Measure(f"a report of {ORDERS} orders", best * 1e3, drawn * 1e3, "drawing its two charts alone", 10.0)
        first = min(_in_a_process(_FIRST_REPORT, path) for _ in range(ROUNDS))
        importing = min(_in_a_process(_IMPORTING, path) for _ in range(ROUNDS))
        yield Measure("the first report of a process", first * 1e3, importing * 1e3, "importing what it needs", 3.0)


def _in_a_process(program: str, path: str) -> float:
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    return float(done.stdout)


def render_report(path: str) -> Incident:
    """Read the store, build the incident, and render both forms."""
    store = open_store(path, read_only=True)
    try:
        incident = incident_of(store, find_incident(store, None), StartedAs(path))
    finally:
        store.close()
    report(incident)
    return incident


def _check(incident: Incident) -> None:
    if len(incident.orders) != ORDERS or incident.course is None or len(incident.course.points) < ORDERS:
        raise AssertionError("the incident is not the promised one")


def _fill(written: FilledStore) -> None:
    """200 orders, five a second, each sent, filled and verified, and an hour of history a second apart."""
    intents = [incidents.intent(f"BTC{number}", "sell", "1", "0", number) for number in range(ORDERS)]
    decision = incidents.firing(FIRST, after(hours=1), "close-everything", 3, 0, *intents)
    written.tick(
        after(hours=1),
        [decision],
        [
            entry(FIRST, "planned", after(hours=1), f"BTC{number}", contracts="1", target="0", mark="100", value="100")
            for number in range(ORDERS)
        ],
        snapshot=incidents.snapshot(after(hours=1)),
        rows=rows(after(), [1000.0 - number % 97 for number in range(7200)]),
    )
    for number in range(ORDERS):
        symbol, at = f"BTC{number}", after(hours=1, seconds=number / 5)
        price = str(Decimal(100) - Decimal(number) / 100)
        written.store.append(entry(FIRST, "sending", at, symbol, side="sell", amount="1", position="1"))
        written.store.append(
            entry(FIRST, "filled", at, symbol, state="filled", filled="1", price=price, fee="0.05", order=f"o{number}")
        )
        written.store.append(entry(FIRST, "verified", at, symbol, position="0", target="0"))
    written.store.append(entry(FIRST, "finished", after(hours=2), None, status="flat", cost="10"))
