"""Repeated notices are grouped: the first is sent at once, the others as one message with a count."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from killswitch.incident.notify.grouping import GROUP_INTERVAL, NoticeGroups, RepeatedNotice
from killswitch.model.decision import Notice, NoticeKind, Severity
from tests.worlds import after


def notice(
    seconds: float,
    severity: Severity = "page",
    kind: NoticeKind = "unexplained",
    subject: str | None = None,
    scope: str = "account/main",
) -> Notice:
    return Notice(after(seconds=seconds), "drawdown", scope, kind, severity, f"a fall at {seconds:g} s", subject)


def test_many_pages_are_one_page_at_once_and_one_with_a_count_after_five_minutes() -> None:
    """159 pages a second apart: the first is sent, and 158 are counted until 300 s after it."""
    groups = NoticeGroups()
    assert [second for second in range(159) if groups.is_sent_at_once(notice(second))] == [0]
    assert groups.due(after(seconds=299)) == []
    assert groups.due(after(seconds=300)) == [RepeatedNotice(notice(158), 158, after(), 159)]
    assert groups.due(after(seconds=301)) == []


def test_each_further_message_comes_five_minutes_after_the_last() -> None:
    """Notices every minute for 20 minutes: one message at 0, then one with its count at 5, 10, 15 and 20 minutes."""
    groups = NoticeGroups()
    sent = []
    for minute in range(21):
        now = after(minutes=minute)
        sent += [(minute, each.count, each.total) for each in groups.due(now)]
        if groups.is_sent_at_once(notice(minute * 60)):
            sent.append((minute, 1, 1))
    assert sent == [(0, 1, 1), (5, 4, 5), (10, 5, 10), (15, 5, 15), (20, 5, 20)]


def test_after_five_minutes_without_a_notice_the_next_one_is_sent_at_once() -> None:
    """The group has ended."""
    groups = NoticeGroups()
    assert groups.is_sent_at_once(notice(0))
    assert groups.due(after(seconds=300)) == []
    assert groups.is_sent_at_once(notice(301))


def test_a_notice_of_higher_severity_is_sent_at_once() -> None:
    """A warning was sent; the first page does not wait in its group, and the second is counted."""
    groups = NoticeGroups()
    assert [groups.is_sent_at_once(notice(0, "warning")), groups.is_sent_at_once(notice(1, "warning"))] == [True, False]
    assert groups.is_sent_at_once(notice(2, "page"))
    assert not groups.is_sent_at_once(notice(3, "page"))
    assert not groups.is_sent_at_once(notice(4, "warning"))
    (group,) = groups.due(after(seconds=302))
    assert (group.newest.severity, group.newest.text, group.count, group.total) == ("page", "a fall at 4 s", 3, 5)


def test_a_notice_marked_as_new_is_sent_at_once() -> None:
    """A page, a counted warning, and a page about a much greater fall; later notices are counted from that page on."""
    groups = NoticeGroups()
    assert [groups.is_sent_at_once(notice(0)), groups.is_sent_at_once(notice(1, "warning"))] == [True, False]
    assert groups.is_sent_at_once(replace(notice(5), at_once=True))
    assert not groups.is_sent_at_once(notice(6, "warning"))
    assert not groups.is_sent_at_once(notice(7))
    assert groups.due(after(seconds=304)) == []
    (group,) = groups.due(after(seconds=305))
    assert (group.newest.text, group.count, group.total) == ("a fall at 7 s", 3, 5)


def test_notices_with_another_scope_or_subject_are_another_group() -> None:
    """Scope and subject identify a group."""
    groups = NoticeGroups()
    assert groups.is_sent_at_once(notice(0))
    assert groups.is_sent_at_once(notice(1, scope="account/other"))
    assert groups.is_sent_at_once(notice(1, subject="halve"))
    assert groups.is_sent_at_once(notice(1, subject="close"))
    assert not groups.is_sent_at_once(notice(2, subject="close"))


@pytest.mark.parametrize("kind", ["warning", "blocked", "nothing_selected", "unknown", "uncorroborated"])
def test_notices_of_other_kinds_are_not_grouped(kind: NoticeKind) -> None:
    """Every refused close is sent, and every notice of an alert."""
    groups = NoticeGroups()
    assert [groups.is_sent_at_once(notice(second, kind=kind)) for second in range(3)] == [True] * 3


def test_a_new_run_continues_the_count() -> None:
    """The run is killed after 100 of the notices: in any order of the stored notices, count and time are the same."""
    groups = NoticeGroups()
    groups.restore([notice(second) for second in reversed(range(100))])
    assert not any(groups.is_sent_at_once(notice(second)) for second in range(100, 159))
    assert groups.due(after() + GROUP_INTERVAL) == [RepeatedNotice(notice(158), 158, after(), 159)]
    assert groups.due(after() + GROUP_INTERVAL + timedelta(seconds=1)) == []
