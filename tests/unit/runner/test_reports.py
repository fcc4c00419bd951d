"""Runbooks and reports during a run: rendered in the background, across restarts, and never at a tick's expense."""

from __future__ import annotations

import asyncio
import os
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from killswitch.incident.record.document import RunbookFacts
from killswitch.incident.record.incident_books import kept_books
from killswitch.incident.record.incident_decisions import keep_runbooks
from killswitch.incident.report import rendering
from killswitch.incident.report.rendering import Rendered, write_document
from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot
from killswitch.runner.judged_keys import unjudged
from killswitch.runner.notify.reports import ReportRenderer
from killswitch.runner.observers import TickReport
from killswitch.store.errors import FencedError
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests import incidents, worlds
from tests.incidents import FilledStore, entry
from tests.runner_world import ScriptedVenue, Seen, World, book
from tests.worlds import after

PATIENCE = 60.0


def reporting(world: World, store: SqlStore) -> ReportRenderer:
    return ReportRenderer(
        store, str(world.folder / "store.sqlite"), world.folder / "rendered", pause=0.0, pause_for_work=0.0
    )


def flat(equity: str) -> AccountSnapshot:
    """The account after its close."""
    return worlds.account(equity, (), instruments=(worlds.rules("BTC"),))


def rendered(world: World) -> dict[str, str]:
    """The Markdown files of the only incident, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in (world.folder / "rendered").glob("*/*.md")}


async def crashing(world: World, store: SqlStore, reports: ReportRenderer, *, work: bool = True) -> Seen:
    """A run that sees 1,000, then 850, and fires; it closes too, where it has time to `work`."""
    seen, venue = Seen(), ScriptedVenue(book("1000"))
    runner = world.runner(store, [venue], witnesses=(seen, reports))
    await runner.start()
    await runner.tick()
    venue.answer = book("850")
    await world.clock.sleep(1.0)
    await runner.tick()
    if work:
        assert await runner.close_within(60.0)
        await world.clock.sleep(1.0)
        await runner.tick()
    await runner.finish()
    return seen


def test_a_stage_that_fires_produces_its_runbook_and_the_report(world: World) -> None:
    """Both forms of both, in the folder of the incident, with the state at the end."""
    store = world.open()
    reports = reporting(world, store)
    seen = asyncio.run(crashing(world, store, reports))
    assert reports.close(PATIENCE)
    assert reports.problem is None
    (decision,) = [each for report in seen.reports for each in report.decisions]
    folder = world.folder / "rendered" / decision.id
    assert {path.name for path in folder.iterdir()} == {
        "report.md", "report.html", "runbook-close-everything.md", "runbook-close-everything.html",
    }  # fmt: skip
    found = rendered(world)
    assert "[x] **Positions confirmed closed**" in found["report.md"]
    assert "the venue shows every position at its target" in found["runbook-close-everything.md"]
    assert len(store.equity_curve(decision.id)) >= 2
    assert store.incident_note(decision.id) is not None


def test_the_report_has_exposure_and_pnl_of_the_book_at_the_firing(world: World) -> None:
    """The book of the tick that fired has the gross of its decision, in the record and on the page."""
    store = world.open()
    reports = reporting(world, store)
    seen = asyncio.run(crashing(world, store, reports))
    assert reports.close(PATIENCE)
    (decision,) = [each for report in seen.reports for each in report.decisions]
    opened = kept_books(store, decision.id).opened
    assert opened is not None
    assert opened.as_of == decision.as_of
    assert decision.book is not None
    (portfolio,) = [each for each in opened.parts if each.of == "portfolio"]
    assert portfolio.gross == decision.book.before.gross
    text = rendered(world)["report.md"]
    assert "**When it opened**" in text
    assert f"| portfolio | portfolio | {portfolio.gross:,.2f} |" in text


def test_rendering_delays_no_tick(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a page takes for ever, ticks continue and orders leave: rendering does not delay them."""
    held, begun = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        assert held.wait(PATIENCE)

    monkeypatch.setattr(rendering, "write_document", slow)
    store = world.open()
    reports = reporting(world, store)
    seen = asyncio.run(crashing(world, store, reports))
    assert [len(report.decisions) for report in seen.reports] == [0, 1, 0]
    assert begun.wait(PATIENCE)
    assert rendered(world) == {}
    held.set()
    assert reports.close(PATIENCE)


def test_a_disk_that_hangs_under_a_page_is_a_problem_and_does_not_delay_a_stop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However patient the stop is; when the disk answers again, the problem is over."""
    held, begun = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        assert held.wait(PATIENCE)

    monkeypatch.setattr(rendering, "write_document", slow)
    reports = reporting(world, world.open())
    asyncio.run(crashing(world, world.open(), reports))
    assert begun.wait(PATIENCE)
    assert reports.problem is None
    monkeypatch.setattr("killswitch.runner.notify.reports.STALLED_AFTER", 0.0)
    assert reports.problem == f"reports are stalled: {world.folder / 'rendered'}, or its disk, accepts no writes"
    assert not reports.close(3600.0)
    held.set()
    monkeypatch.setattr("killswitch.runner.notify.reports.STALLED_AFTER", PATIENCE)
    assert reports.close(PATIENCE)
    assert reports.problem is None


def test_a_pipe_or_link_in_place_of_a_page_is_neither_written_through_nor_waited_for(tmp_path: Path) -> None:
    """A pipe under the temporary name, and a link to another file: the page is there, and the other file unchanged."""
    folder = tmp_path / "incident"
    folder.mkdir()
    os.mkfifo(folder / ".report.md.tmp")
    (tmp_path / "other").write_text("mine", encoding="utf-8")
    (folder / ".report.html.tmp").symlink_to(tmp_path / "other")
    assert write_document(tmp_path, "incident", "report", Rendered("text", "page"))
    assert (folder / "report.md").read_text(encoding="utf-8") == "text"
    assert (folder / "report.html").read_text(encoding="utf-8") == "page"
    assert (tmp_path / "other").read_text(encoding="utf-8") == "mine"


def test_a_failure_is_reported_as_a_problem_until_it_works_again(world: World) -> None:
    """A folder that cannot be made ends no run; once it can be, the report is there and the problem is gone."""
    store = world.open()
    (world.folder / "rendered").write_text("a file in the way", encoding="utf-8")
    reports = reporting(world, store)
    seen = asyncio.run(crashing(world, store, reports))
    assert reports.wait(PATIENCE)
    assert len(seen.reports) == 3
    assert reports.problem is not None
    assert "the report of incident" in reports.problem
    assert "cannot be written" in reports.problem
    (world.folder / "rendered").unlink()
    assert reports.close(PATIENCE)
    assert reports.problem is None
    assert "report.md" in rendered(world)


def test_the_report_of_an_incident_that_a_run_does_not_render_is_not_over(world: World) -> None:
    """A start renders open incidents and the last few: of an older one nothing is known."""
    store = world.open()
    reports = reporting(world, store)
    asyncio.run(crashing(world, store, reports))
    assert reports.wait(PATIENCE)
    (folder,) = (world.folder / "rendered").iterdir()
    keys = ("reports/incidents", f"reports/{folder.name}", "reports/an-older-incident")
    assert unjudged(keys, reports.judges) == ("reports/an-older-incident",)


def test_a_broken_runbook_template_prevents_neither_the_report_nor_the_run(world: World) -> None:
    """The template was changed after validation: the problem names it, and a generic runbook gives the reason."""
    store = world.open()
    (world.folder / "own.md.j2").write_text("{{ incident.nope }}", encoding="utf-8")
    facts = RunbookFacts("own", str(world.folder), "own.md.j2")
    keep_runbooks(store, "sha256:test", {"crash": {"close-everything": facts}})
    reports = reporting(world, store)
    asyncio.run(crashing(world, store, reports))
    assert reports.close(PATIENCE)
    assert reports.problem is not None
    assert "nope" in reports.problem
    found = rendered(world)
    assert set(found) == {"report.md", "runbook-close-everything.md"}
    assert found["runbook-close-everything.md"].startswith("> **This is the generic runbook:** the stage's own could")
    assert "has no field" in found["runbook-close-everything.md"].splitlines()[0]
    assert "# close-everything on account/main" in found["runbook-close-everything.md"]


def test_a_template_of_the_policy_set_is_used(world: World) -> None:
    """The template that the document names is rendered, with the shipped pieces under it."""
    store = world.open()
    own = '{% extends "stage.md.j2" %}{% block you %}Call {{ incident.contacts|length }} people.{% endblock %}'
    (world.folder / "own.md.j2").write_text(own, encoding="utf-8")
    facts = RunbookFacts("own", str(world.folder), "own.md.j2")
    keep_runbooks(store, "sha256:test", {"crash": {"close-everything": facts}})
    reports = reporting(world, store)
    asyncio.run(crashing(world, store, reports))
    assert reports.close(PATIENCE)
    assert "Call 0 people." in rendered(world)["runbook-close-everything.md"]


def test_a_restart_completes_what_a_kill_interrupted(world: World) -> None:
    """The run was killed right after the firing, before a page was written: the next run writes it all."""
    store = world.open()
    asyncio.run(crashing(world, store, _NoReports(), work=False))  # type: ignore[arg-type] # a run that never got to it
    assert rendered(world) == {}
    reports = reporting(world, store)
    venue = ScriptedVenue(book("850"))

    async def again() -> None:
        runner = world.runner(store, [venue], witnesses=(reports,))
        await runner.start()
        await runner.tick()
        assert await runner.close_within(60.0)
        await runner.tick()
        await runner.finish()

    asyncio.run(again())
    assert reports.close(PATIENCE)
    assert set(rendered(world)) == {"report.md", "runbook-close-everything.md"}
    assert "[x] **Positions confirmed closed**" in rendered(world)["report.md"]


class _NoReports:
    """Replaces the reports in a run that is killed before it gets to anything."""

    def ticked(self, report: object) -> None:
        pass


def test_the_reset_is_the_last_entry_of_the_report(world: World) -> None:
    """Rendered once more when the incident ends: closed, by whom, and with nothing to reset any more."""
    store = world.open()
    reports = reporting(world, store)
    asyncio.run(crashing(world, store, reports))
    assert reports.wait(PATIENCE)
    assert "ksctl reset account/main" in rendered(world)["report.md"]
    store.put_event(worlds.operator_event("reset", world.clock.now()))

    async def once() -> None:
        runner = world.runner(store, [ScriptedVenue(flat("849"))], witnesses=(reports,))
        await runner.start()
        await world.clock.sleep(1.0)
        await runner.tick()
        await runner.finish()

    asyncio.run(once())
    assert reports.close(PATIENCE)
    found = rendered(world)["report.md"]
    assert "| state | **closed** |" in found or "| state | **closed**, " in found
    assert "ksctl reset" not in found


def test_an_equity_curve_point_is_stored_every_ten_seconds_and_only_then_anything_is_queried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uneventful ticks wake nothing, except for the equity curve of an open incident."""
    store = world.open()
    reports = reporting(world, store)
    views: list[None] = []
    passes: list[int] = []

    def open_view(*arguments: Any, **named: Any) -> SqlStore:
        views.append(None)
        return open_store(*arguments, **named)

    monkeypatch.setattr("killswitch.runner.notify.reports.open_store", open_view)

    async def ticks() -> None:
        runner = world.runner(store, [ScriptedVenue(flat("849"))], witnesses=(reports,))
        await runner.start()
        for _ in range(25):
            await runner.tick()
            assert reports.wait(PATIENCE)
            passes.append(len(views))
            await world.clock.sleep(1.0)
        await runner.finish()

    asyncio.run(crashing(world, store, reports))
    assert reports.wait(PATIENCE)
    asyncio.run(ticks())
    assert reports.close(PATIENCE)
    intervals = [later - earlier for earlier, later in pairwise(passes)]
    assert sum(intervals) in (2, 3)


def test_a_runner_that_lost_its_lease_writes_no_equity_curve(world: World) -> None:
    """The curve is fenced as ticks are: an older runner's thread cannot write after a newer one has started."""
    store, other = world.open(), world.open()
    asyncio.run(crashing(world, store, _NoReports()))  # type: ignore[arg-type] # as above
    generation = other.acquire("other", 1 << 55, 1).generation
    assert generation > 1
    with pytest.raises(FencedError):
        store.keep_incident("x", b"", [])


def by_hand(written: FilledStore) -> Decision:
    """A person closes 5 BTC; nothing has resulted yet."""
    decision = Decision(
        "dd" * 10, after(), "operator", incidents.SET, "portfolio", "enforce", None, 0, 0, kind="manual",
        author="ada", reason="drill", intents=(incidents.intent("BTC", "sell", "5", "0"),),
    )  # fmt: skip
    written.tick(after(), [decision], [entry(decision.id, "planned", after(), target="0", contracts="5")])
    return decision


def flat_by_hand(written: FilledStore, decision: Decision) -> None:
    """The manual close ends."""
    written.store.append(entry(decision.id, "verified", after(minutes=3), position="0", target="0"))
    written.store.append(entry(decision.id, "finished", after(minutes=3), None, status="flat"))


def notify(reports: ReportRenderer, minutes: int, *decisions: Decision) -> None:
    """A tick with an event."""
    reports.ticked(TickReport(incidents.snapshot(after(minutes=minutes)), decisions, (), (), (), 0.0))
    assert reports.wait(PATIENCE)


def test_a_manual_close_is_followed_to_its_end_whatever_fires_meanwhile(tmp_path: Path) -> None:
    """Six accounts fire while it runs: its report still says when the venue showed the positions closed."""
    written = incidents.filled_store(tmp_path)
    reports = ReportRenderer(written.store, str(written.path), tmp_path / "rendered", pause=0.0, pause_for_work=0.0)
    page = tmp_path / "rendered" / ("dd" * 10) / "report.md"
    try:
        decision = by_hand(written)
        notify(reports, 0, decision)
        assert "still closing on main" in page.read_text(encoding="utf-8")
        fired = [
            incidents.firing(f"{number}e" * 10, after(minutes=1), "trim", 1, 0, scope=f"account/{number}")
            for number in range(1, 7)
        ]
        written.tick(after(minutes=1), fired)
        notify(reports, 1, *fired)
        flat_by_hand(written, decision)
        notify(reports, 4, *fired)
        assert "[x] **Positions confirmed closed**" in page.read_text(encoding="utf-8")
    finally:
        assert reports.close(PATIENCE)
        written.store.close()


def test_a_report_that_could_not_be_written_is_retried_after_its_end(tmp_path: Path) -> None:
    """The disk was full when the incident ended, and nothing has happened since: its final state is written.

    Ten seconds later, by the ticks' own time.
    """
    written = incidents.filled_store(tmp_path)
    (tmp_path / "rendered").write_text("a file in the way", encoding="utf-8")
    reports = ReportRenderer(written.store, str(written.path), tmp_path / "rendered", pause=0.0, pause_for_work=0.0)
    try:
        incidents.whole_incident(written)
        notify(reports, 11)
        assert reports.problem is not None
        notify(reports, 12)  # the run's first pass is over, and nothing is open
        (tmp_path / "rendered").unlink()
        notify(reports, 13)
        assert reports.problem is None
        assert "**closed**" in (tmp_path / "rendered" / incidents.FIRST / "report.md").read_text(encoding="utf-8")
    finally:
        assert reports.close(PATIENCE)
        written.store.close()


def test_loaded_objects_are_not_scanned_again_once_the_first_page_is_drawn(tmp_path: Path) -> None:
    """Garbage collections stop the ticks: they need not scan a drawing library at every page."""
    written = incidents.filled_store(tmp_path)
    loaded: list[bool] = []
    reports = ReportRenderer(
        written.store, str(written.path), tmp_path / "rendered", pause=0.0, pause_for_work=0.0,
        warmed_up=lambda: loaded.append((tmp_path / "rendered" / ("dd" * 10) / "report.html").is_file()),
    )  # fmt: skip
    try:
        notify(reports, 0)
        assert loaded == [], "nothing has been drawn yet"
        decision = by_hand(written)
        notify(reports, 1, decision)
        flat_by_hand(written, decision)
        notify(reports, 4, decision)
        assert loaded == [True]
    finally:
        assert reports.close(PATIENCE)
        written.store.close()
