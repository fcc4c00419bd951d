"""Notices that repeat are one message at once, and later one with a count."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec import structs

from killswitch.incident.notify.grouping import GROUP_INTERVAL, NoticeGroups, RepeatedNotice
from killswitch.model.decision import Notice, NoticeKind, Severity
from tests import incidents
from tests.incidents import FIRST
from tests.worlds import after


def notice(
    seconds: float,
    severity: Severity = "page",
    kind: NoticeKind = "unexplained",
    subject: str | None = None,
    scope: str = "account/main",
) -> Notice:
    return Notice(after(seconds=seconds), "drawdown", scope, kind, severity, f"a fall at {seconds:g} s", subject)


def test_a_wall_of_pages_is_one_page_at_once_and_one_with_a_count_after_five_minutes() -> None:
    """159 pages a second apart: the first leaves, and 158 are counted until 300 s after it."""
    groups = NoticeGroups()
    assert [second for second in range(159) if groups.is_sent_at_once(notice(second))] == [0]
    assert groups.due(after(seconds=299)) == []
    assert groups.due(after(seconds=300)) == [RepeatedNotice(notice(158), 158, after(), 159)]
    assert groups.due(after(seconds=301)) == []


def test_each_further_message_comes_five_minutes_after_the_last() -> None:
    """Notices every minute for 20 minutes: at 0, and with five more each at 5, 10, 15 and 20 minutes."""
    groups = NoticeGroups()
    sent = []
    for minute in range(21):
        now = after(minutes=minute)
        sent += [(minute, each.count, each.total) for each in groups.due(now)]
        if groups.is_sent_at_once(notice(minute * 60)):
            sent.append((minute, 1, 1))
    assert sent == [(0, 1, 1), (5, 4, 5), (10, 5, 10), (15, 5, 15), (20, 5, 20)]


def test_after_five_quiet_minutes_the_next_one_leaves_at_once() -> None:
    """The group is over."""
    groups = NoticeGroups()
    assert groups.is_sent_at_once(notice(0))
    assert groups.due(after(seconds=300)) == []
    assert groups.is_sent_at_once(notice(301))


def test_a_graver_one_leaves_at_once() -> None:
    """A warning has left; the first page does not wait for it, and the second is counted."""
    groups = NoticeGroups()
    assert [groups.is_sent_at_once(notice(0, "warning")), groups.is_sent_at_once(notice(1, "warning"))] == [True, False]
    assert groups.is_sent_at_once(notice(2, "page"))
    assert not groups.is_sent_at_once(notice(3, "page"))
    assert not groups.is_sent_at_once(notice(4, "warning"))
    (found,) = groups.due(after(seconds=302))
    assert (found.newest.severity, found.newest.text, found.count, found.total) == ("page", "a fall at 4 s", 3, 5)


def test_what_says_that_it_is_news_leaves_at_once() -> None:
    """A page, a warning that is counted, and a page about much more; what follows that is counted from there on."""
    groups = NoticeGroups()
    assert [groups.is_sent_at_once(notice(0)), groups.is_sent_at_once(notice(1, "warning"))] == [True, False]
    assert groups.is_sent_at_once(structs.replace(notice(5), at_once=True))
    assert not groups.is_sent_at_once(notice(6, "warning"))
    assert not groups.is_sent_at_once(notice(7))
    assert groups.due(after(seconds=304)) == []
    (found,) = groups.due(after(seconds=305))
    assert (found.newest.text, found.count, found.total) == ("a fall at 7 s", 3, 5)


def test_what_is_about_something_else_is_a_group_of_its_own() -> None:
    """Another scope, kind or subject."""
    groups = NoticeGroups()
    assert groups.is_sent_at_once(notice(0))
    assert groups.is_sent_at_once(notice(1, scope="account/other"))
    assert groups.is_sent_at_once(notice(1, kind="unknown", subject="fall"))
    assert groups.is_sent_at_once(notice(1, kind="unknown", subject="gross"))
    assert not groups.is_sent_at_once(notice(2, kind="unknown", subject="gross"))


@pytest.mark.parametrize("kind", ["warning", "blocked", "nothing_selected"])
def test_notices_of_other_kinds_leave_each_by_itself(kind: NoticeKind) -> None:
    """A refused close is news each time."""
    groups = NoticeGroups()
    assert [groups.is_sent_at_once(notice(second, kind=kind)) for second in range(3)] == [True] * 3


def test_a_stage_that_fires_ends_what_was_counted_of_its_not_firing() -> None:
    """It is told since when people heard that it did not fire, once; no count of it comes afterwards."""
    groups = NoticeGroups()
    decision = incidents.firing(FIRST, after(seconds=9), "trim", 1, 0)
    assert groups.end_uncorroborated(decision) is None
    assert groups.end_uncorroborated(incidents.reset(after(seconds=1))) is None
    assert groups.is_sent_at_once(notice(3, kind="uncorroborated", subject="trim"))
    assert not groups.is_sent_at_once(notice(4, kind="uncorroborated", subject="trim"))
    assert groups.end_uncorroborated(decision) == after(seconds=3)
    assert groups.end_uncorroborated(decision) is None
    assert groups.due(after(minutes=30)) == []


def test_a_run_that_takes_over_counts_on() -> None:
    """Killed after 100 of the notices, in whatever order the store gives them: the same count at the same time."""
    groups = NoticeGroups()
    groups.restore([notice(second) for second in reversed(range(100))], [])
    assert not any(groups.is_sent_at_once(notice(second)) for second in range(100, 159))
    assert groups.due(after() + GROUP_INTERVAL) == [RepeatedNotice(notice(158), 158, after(), 159)]
    assert groups.due(after() + GROUP_INTERVAL + timedelta(seconds=1)) == []


def test_a_firing_of_the_run_before_has_ended_its_group() -> None:
    """What did not fire, and then did, is not counted on after a restart."""
    groups = NoticeGroups()
    groups.restore(
        [notice(second, kind="uncorroborated", subject="trim") for second in range(5)],
        [incidents.firing(FIRST, after(seconds=9), "trim", 1, 0)],
    )
    assert groups.due(after(minutes=30)) == []
    assert groups.is_sent_at_once(notice(1801, kind="uncorroborated", subject="trim"))
