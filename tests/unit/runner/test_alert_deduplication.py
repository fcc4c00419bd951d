"""Which changes of a problem are reported: it appears, it keeps coming back, and it is over."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from killswitch.model.snapshot import Closing, Residual, Snapshot
from killswitch.runner.alert_deduplication import AlertDeduplication
from tests import worlds

WEAK = "the folder has not answered since 12:00:00"


class Reported:
    """The deduplication of a run, and what it reported at which second."""

    def __init__(self) -> None:
        self.news = AlertDeduplication()
        self.pages: list[tuple[int, str]] = []

    def tick(self, second: int, *problems: str, closings: tuple[Closing, ...] = (), subject: str | None = None) -> None:
        snapshot = Snapshot(worlds.START + timedelta(seconds=second), (), "killswitch.snapshot/v1", closings=closings)
        subjects = {} if subject is None else dict.fromkeys(problems, subject)
        self.pages += [(second, notice.text) for notice in self.news.alerts(snapshot, problems, (), subjects)]


def test_a_problem_is_reported_once_while_it_lasts_though_its_text_changes() -> None:
    """Its subject stays the same: the time in its text makes no new alert."""
    reported = Reported()
    for second in range(300):
        reported.tick(second, f"the folder has not answered since 12:00:{second:02}", subject="folder")
    assert reported.pages == [(0, "the folder has not answered since 12:00:00")]


def test_an_intermittent_problem_is_reported_at_doubling_intervals_with_its_count() -> None:
    """Every other second for an hour: six notices, and not 1800."""
    reported = Reported()
    for second in range(3600):
        reported.tick(second, *([WEAK] if second % 2 == 0 else []), subject="folder")
    assert [second for second, _ in reported.pages] == [0, 60, 180, 420, 900, 1860]
    assert reported.pages[1][1] == f"{WEAK} (it has returned 30 times since 2024-01-01T00:00:00Z)"


def test_the_end_of_a_problem_is_reported_once_and_its_return_anew() -> None:
    """Not while it is expected back."""
    reported = Reported()
    reported.tick(0, WEAK, subject="folder")
    for second in range(1, 100):
        reported.tick(second)
    reported.tick(100, WEAK, subject="folder")
    assert reported.pages == [(0, WEAK), (61, f"over since 2024-01-01T00:00:01Z: {WEAK}"), (100, WEAK)]


def test_the_result_of_a_close_is_reported_at_once_whatever_else_comes_and_goes() -> None:
    """A residual is no problem of the runner's own: each is reported, however soon after another."""
    reported = Reported()
    residuals = (Residual("main", "BTC", "long", Decimal(1)),)
    for second in range(4):
        ended = tuple(Closing(f"d{number}", "residual", residuals) for number in range(second))
        reported.tick(second, *([WEAK] if second % 2 == 0 else []), closings=ended, subject="folder")
    assert [(second, text[:39]) for second, text in reported.pages[1:]] == [
        (1, "the closing of decision d0 ended residu"),
        (2, "the closing of decision d1 ended residu"),
        (3, "the closing of decision d2 ended residu"),
    ]
