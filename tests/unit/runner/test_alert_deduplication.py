"""What is news of a problem: it comes up, it keeps coming back, and it is over."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from killswitch.model.snapshot import Closing, Residual, Snapshot
from killswitch.runner.alert_deduplication import AlertDeduplication
from tests import worlds

WEAK = "the folder has not answered since 12:00:00"


class Told:
    """A run's news, and what was told at which second."""

    def __init__(self) -> None:
        self.news = AlertDeduplication()
        self.pages: list[tuple[int, str]] = []

    def tick(self, second: int, *problems: str, closings: tuple[Closing, ...] = (), subject: str | None = None) -> None:
        snapshot = Snapshot(worlds.START + timedelta(seconds=second), (), "killswitch.snapshot/v1", closings=closings)
        subjects = {} if subject is None else dict.fromkeys(problems, subject)
        self.pages += [(second, notice.text) for notice in self.news.alerts(snapshot, problems, (), subjects)]


def test_a_problem_is_told_once_while_it_lasts_though_its_words_change() -> None:
    """What it is about stays the same: the time in its words is no news."""
    told = Told()
    for second in range(300):
        told.tick(second, f"the folder has not answered since 12:00:{second:02}", subject="folder")
    assert told.pages == [(0, "the folder has not answered since 12:00:00")]


def test_a_problem_that_comes_and_goes_is_told_at_doubled_distances_with_how_often_it_came() -> None:
    """Every other second for an hour: six notices, and not 1800."""
    told = Told()
    for second in range(3600):
        told.tick(second, *([WEAK] if second % 2 == 0 else []), subject="folder")
    assert [second for second, _ in told.pages] == [0, 60, 180, 420, 900, 1860]
    assert told.pages[1][1] == f"{WEAK} (it has returned 30 times since 2024-01-01T00:00:00Z)"


def test_the_end_of_a_problem_is_told_once_and_after_that_it_is_news_again() -> None:
    """Not while it is expected back."""
    told = Told()
    told.tick(0, WEAK, subject="folder")
    for second in range(1, 100):
        told.tick(second)
    told.tick(100, WEAK, subject="folder")
    assert told.pages == [(0, WEAK), (61, f"over since 2024-01-01T00:00:01Z: {WEAK}"), (100, WEAK)]


def test_how_a_closing_ended_is_told_at_once_whatever_else_comes_and_goes() -> None:
    """A residual is no problem of the runner's own: each is told, however soon after another."""
    told = Told()
    left = (Residual("main", "BTC", "long", Decimal(1)),)
    for second in range(4):
        ended = tuple(Closing(f"d{number}", "residual", left) for number in range(second))
        told.tick(second, *([WEAK] if second % 2 == 0 else []), closings=ended, subject="folder")
    assert [(second, text[:39]) for second, text in told.pages[1:]] == [
        (1, "the closing of decision d0 ended residu"),
        (2, "the closing of decision d1 ended residu"),
        (3, "the closing of decision d2 ended residu"),
    ]
