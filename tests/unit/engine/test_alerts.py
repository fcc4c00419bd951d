"""The life of an alert: an example course by hand, and what holds for every course."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.engine.alerts import MOST_FINDINGS, AlertState, advance, encode_state, read_state
from killswitch.model.alert import Alert, Alerts, NoticeGroup
from killswitch.model.decision import Notice
from killswitch.model.instant import SECOND, from_micros, to_micros
from killswitch.model.words import Severity

START = 1_704_067_200 * SECOND  # 2024-01-01T00:00:00Z
FOLDER = Alert("locks/folder", "page", "the folder does not answer")


class Course:
    """A course of ticks, and what was notified at which second."""

    def __init__(self) -> None:
        self.state = AlertState()
        self.notices: list[tuple[int, str, str]] = []

    def tick(self, second: int, *found: Alert, unknown: tuple[str, ...] = ()) -> list[str]:
        issued, self.state = advance(self.state, Alerts(found, unknown), START + second * SECOND)
        self.notices += [(second, each.severity, each.text) for each in issued]
        return [each.text for each in issued]

    def restart(self) -> None:
        self.state = read_state(encode_state(self.state))


def test_the_life_of_an_alert_by_hand() -> None:
    """It appears, is reworded, becomes worse, ends, returns, keeps returning, and is over after its pause."""
    course = Course()
    course.tick(0, Alert("a/1", "warning", "weak"))
    course.tick(1, Alert("a/1", "warning", "weak, in other words"))
    course.tick(2, Alert("a/1", "page", "broken"))
    course.tick(3)  # the first end is notified at once
    course.tick(5, Alert("a/1", "warning", "weak"))  # so its return is not held back; the pause is 2 min from now on
    course.tick(6)
    course.tick(7, Alert("a/1", "warning", "weak"))
    course.tick(8)
    course.tick(124, Alert("a/1", "warning", "weak"))
    course.tick(125, Alert("a/1", "warning", "weak"))  # 2 min after second 5; the pause is 4 min from now on
    course.tick(126)
    course.tick(365)
    course.tick(366)  # absent for 4 min
    course.tick(400)
    assert course.notices == [
        (0, "warning", "weak"),
        (2, "page", "broken"),
        (3, "page", "over since 2024-01-01T00:00:03Z: broken"),
        (5, "warning", "weak (it has returned once since 2024-01-01T00:00:02Z)"),
        (125, "warning", "weak (it has returned 2 times since 2024-01-01T00:00:05Z)"),
        (366, "warning", "over since 2024-01-01T00:02:06Z: weak"),
    ]


def test_an_alert_that_comes_and_goes_is_notified_at_doubling_intervals() -> None:
    """Every other second for an hour: seven notices, and not 1800."""
    course = Course()
    for second in range(3600):
        course.tick(second, *([FOLDER] if second % 2 == 0 else []))
    assert [second for second, _, _ in course.notices] == [0, 1, 2, 122, 362, 842, 1802]


def test_an_alert_that_grows_is_notified_at_once_though_it_comes_and_goes() -> None:
    """A fall that grew is never held back, and one that shrank and grew to its old size is no news."""
    course = Course()
    sizes = [5, 5, 7, 6, 7, None, 8]
    for second, size in enumerate(sizes):
        course.tick(
            second, *([] if size is None else [Alert("fall", "page", f"fell by {size}", measure=(Decimal(size),))])
        )
    assert [text[:9] for _, _, text in course.notices] == ["fell by 5", "fell by 7", "over sinc", "fell by 8"]


def test_what_cannot_be_judged_is_not_over() -> None:
    """Only the keys named as unknown stay; a key that merely begins with the same letters does not."""
    course = Course()
    one, other = Alert("outage/a", "page", "a is out"), Alert("outage/ab", "page", "ab is out")
    course.tick(0, one, other)
    assert course.tick(1, unknown=("outage/a",)) == ["over since 2024-01-01T00:00:01Z: ab is out"]
    assert course.tick(2, unknown=("",)) == []
    assert course.tick(3, unknown=("outage",)) == []
    assert [each.alert.key for each in course.state.active] == ["outage/a"]
    assert course.tick(4) == ["over since 2024-01-01T00:00:04Z: a is out"]


class ComparedText(str):
    """A text that counts how often it is compared with another, or searched for its beginning."""

    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        ComparedText.comparisons += 1
        return str.__eq__(self, other)

    def __format__(self, spec: str) -> str:
        ComparedText.comparisons += 1
        return str.__format__(self, spec)


def test_the_cost_of_a_tick_is_not_the_product_of_what_is_remembered_and_what_is_unknown() -> None:
    """Of 300 findings and 300 active alerts, none is compared with each of 300 keys that cannot be judged."""
    course = Course()
    findings = [Alert(f"order/{number}/open", "page", "open", lasts=False) for number in range(300)]
    course.tick(0, *findings, *(Alert(f"outage/{number}", "page", "out") for number in range(300)))
    unknown = tuple(ComparedText(f"hedge/{number}/BTC/long") for number in range(300))
    ComparedText.comparisons = 0
    assert len(course.tick(1, unknown=unknown)) == 300
    assert ComparedText.comparisons <= 300


def test_time_in_which_it_could_not_be_judged_is_no_absence() -> None:
    """An alert that comes and goes is over only once it was seen absent for its whole pause."""
    course = Course()
    for second in range(4):
        course.tick(second, *([FOLDER] if second % 2 == 0 else []))  # absent from second 3 on, with a pause of 2 min
    course.tick(4, unknown=("locks",))
    assert course.tick(123) == []
    assert course.tick(243) == ["over since 2024-01-01T00:02:03Z: the folder does not answer"]


def test_a_resolving_notice_says_how_long_it_lasted() -> None:
    """From when its part says that it began, at its highest severity, to those who were notified of it."""
    course = Course()
    group = NoticeGroup("p", "account/a", "blocked", "BTC")
    outage = Alert("outage/a", "page", "a is out", group, "a can be read again", since=START - 40 * SECOND)
    course.tick(0, outage)
    (notice,), _ = advance(course.state, Alerts(), START + 20 * SECOND)
    assert notice == Notice(
        from_micros(START + 20 * SECOND), "p", "account/a", "blocked", "page", "a can be read again, after 60 s", "BTC",
        title="over: account a cannot be read", alert="outage/a", is_over=True,
    )  # fmt: skip


def test_a_finding_is_notified_once_and_never_resolved() -> None:
    """Its part does not look for its end. The oldest of very many are forgotten."""
    course = Course()
    finding = Alert("order/1/open", "page", "order 1 is still open", lasts=False)
    assert course.tick(0, finding) == ["order 1 is still open"]
    assert [text for second in range(1, 10_000, 997) for text in course.tick(second)] == []
    assert course.tick(20_000, finding) == []
    before = course.state
    assert course.tick(20_001, finding) == []
    assert course.state is before, "nothing is stored again"
    assert course.state.active == ()
    for number in range(MOST_FINDINGS):
        course.tick(30_000 + number, Alert(f"order/x{number}/open", "page", "x", lasts=False))
    assert course.tick(40_000, finding) == ["order 1 is still open"]


def test_a_finding_that_becomes_worse_is_paged_once() -> None:
    """A warning, then a page at every tick: the first of these pages, and no other."""
    course = Course()
    course.tick(0, Alert("order/1/open", "warning", "order 1 is late", lasts=False))
    for second in range(1, 4):
        course.tick(second, Alert("order/1/open", "page", "order 1 is lost", lasts=False))
    assert course.notices == [(0, "warning", "order 1 is late"), (1, "page", "order 1 is lost")]


def test_more_findings_than_are_remembered_are_notified_once() -> None:
    """Those that every tick finds, such as commands that cannot be read; once they are gone, the bound applies."""
    course = Course()
    many = [Alert(f"command/{number}", "page", "x", lasts=False) for number in range(2 * MOST_FINDINGS)]
    assert [len(course.tick(second, *many)) for second in range(3)] == [len(many), 0, 0]
    course.tick(3, many[0])
    assert len(course.state.known) == MOST_FINDINGS
    assert course.tick(4, many[0]) == []


def paged(text: str, second: int = 0) -> Notice:
    """A notice of a page at that second."""
    return Notice(from_micros(START + second * SECOND), "runner", "runner", "warning", "page", text)


def test_an_upgrade_repeats_nothing_that_has_the_same_text() -> None:
    """A store without this state: the first minute leaves out what was notified in the hour before, and no later."""
    course, now = Course(), START
    course.state = read_state(None, [paged(FOLDER.text)], now)
    assert course.tick(0, FOLDER, Alert("b", "page", "b")) == ["b"]
    for second, expected in ((59, []), (60, [FOLDER.text])):  # a stall takes some passes to be found
        course.state = read_state(None, [paged(FOLDER.text)], now)
        course.tick(0)
        assert course.tick(second, FOLDER) == expected


def test_an_upgrade_repeats_nothing_under_a_heading() -> None:
    """A text is compared with its heading, alone or among those of one notice, and never with a part of a text."""
    course = Course()
    texts = ["BTC is refused", "ETH is stuck", "SOL", "main"]
    found = [Alert(f"a/{text}", "page", text, heading="closing on main") for text in texts]
    earlier = ["closing on main: BTC is refused", "closing on main: ADA; ETH is stuck", "closing on main: SOL waits"]
    course.state = read_state(None, map(paged, earlier), START)
    assert course.tick(0, *found) == ["closing on main: SOL; main"]


def test_an_upgrade_keeps_back_nothing_that_is_old_or_worse() -> None:
    """What was notified an hour before the start, or as a warning, is a page."""
    course = Course()
    weak = [replace(paged(text), severity="warning") for text in ("b", "closing: d")]
    course.state = read_state(None, [paged(FOLDER.text, -3600), *weak, paged("c", -3599)], START)
    found = [Alert(text, "page", text) for text in (FOLDER.text, "b", "c")]
    found.append(Alert("d", "page", "d", heading="closing"))
    assert course.tick(0, *found) == [FOLDER.text, "b", "closing: d"]


def test_a_damaged_state_counts_as_none() -> None:
    """It makes a notice twice, and never keeps one back."""
    course = Course()
    course.state = read_state(b"{]")
    assert course.tick(0, FOLDER) == [FOLDER.text]


def test_a_clock_that_was_ahead_before_a_restart_holds_nothing_back() -> None:
    """The alert came and went a day ahead; after the start its end is notified when the pause of 4 min is over."""
    course, day = Course(), 86_400
    for second in (0, 2, 125):
        course.tick(day + second, Alert("a", "page", "wrong"))
        course.tick(day + second + 1)
    before = len(course.notices)
    course.state = read_state(encode_state(course.state), now=START)
    course.tick(1)
    assert course.tick(241) != []
    assert len(course.notices) == before + 1


def test_an_entry_of_the_state_that_cannot_be_decoded_costs_no_other_entry() -> None:
    """One of a later version is not repeated if its text was notified lately; the others are known as before."""
    course = Course()
    one, other = Alert("a", "page", "a is wrong"), Alert("b", "page", "b is wrong")
    course.tick(0, one, other)
    blob = encode_state(course.state).replace(b'"key":"b","severity":"page"', b'"key":"b","severity":"alarm"')
    for earlier, expected in (([], ["b is wrong"]), ([paged("b is wrong")], [])):
        course.state = read_state(blob, earlier, START + SECOND)
        assert [each.alert.key for each in course.state.active] == ["a"]
        assert course.tick(1, one, other) == expected


def test_a_measure_of_two_numbers_grows_by_the_first_that_differs() -> None:
    """More positions, or as many with more contracts; fewer positions with more contracts are less."""
    course = Course()
    sizes = [(2, 5), (1, 900), (2, 4), (2, 6), (3, 1)]
    for second, size in enumerate(sizes):
        course.tick(second, Alert("left", "page", f"{size}", measure=tuple(map(Decimal, size)), lasts=False))
    assert [text for _, _, text in course.notices] == ["(2, 5)", "(2, 6)", "(3, 1)"]


def test_a_measure_of_an_earlier_version_is_compared_with_one_of_now() -> None:
    """It was one number: the contracts left, and 10^15 for each position; what was notified is not repeated."""
    two_with_5 = (
        b'{"alert":{"key":"left","severity":"page","text":"\\"measure\\":\\"7\\"","measure":"2000000000000005",'
    )
    blob = b'{"left":%b"lasts":false},"since":1,"notified":1,"severity":"page","gone":1}}' % two_with_5
    for size, expected in (((2, 5), []), ((1, 900), []), ((2, 6), ["(2, 6)"]), ((3, 1), ["(3, 1)"])):
        course = Course()
        course.state = read_state(blob)
        found = Alert("left", "page", f"{size}", measure=tuple(map(Decimal, size)), lasts=False)
        assert course.tick(0, found) == expected


def test_alerts_under_one_heading_are_one_notice() -> None:
    """Those of one tick that began, and those that ended; their keys live on their own."""
    course = Course()
    one, two, three = (Alert(f"a/{name}", "page", name, heading="closing") for name in ("one", "two", "three"))
    other = Alert("b", "page", "other")
    assert course.tick(0, one, two, other) == ["closing: one; two", "other"]
    assert course.tick(1, one, two, three, other) == ["closing: three"]
    assert course.tick(2, three) == [
        "closing: over since 2024-01-01T00:00:02Z: one; over since 2024-01-01T00:00:02Z: two",
        "over since 2024-01-01T00:00:02Z: other",
    ]
    assert Alerts((one, two, other)).texts == ("closing: one; two", "other")


SEVERITIES = st.sampled_from(["warning", "page"])
Step = dict[str, tuple[Severity, int]]


def test_one_outage_is_one_page_with_what_follows_from_it_on_record() -> None:
    """Four triggers are unknown because the account cannot be read: the outage pages, and they are for the record."""
    outage = Alert("outage/main", "page", "main cannot be read", over="main can be read again")
    unknown = tuple(
        Alert(f"trigger/p/t{n}", "page", f"t{n} is unknown", over=f"t{n} is known", part_of=("outage/main",))
        for n in range(4)
    )
    sent, state = advance(AlertState(), Alerts((outage, *unknown)), 0)
    assert [(each.severity, each.text) for each in sent] == [
        ("page", "main cannot be read"), *(("info", f"t{n} is unknown") for n in range(4)),
    ]  # fmt: skip
    over, state = advance(state, Alerts(), 60 * SECOND)
    assert [(each.severity, each.text.split(",")[0]) for each in over if each.severity != "info"] == [
        ("page", "main can be read again")
    ]


def test_what_outlasts_the_outage_is_paged_then() -> None:
    """A trigger that is still unknown once the account can be read is unknown for another reason."""
    outage = Alert("outage/main", "page", "main cannot be read")
    unknown = Alert("trigger/t", "page", "t is unknown", part_of=("outage/main",))
    _, state = advance(AlertState(), Alerts((outage, unknown)), 0)
    sent, state = advance(state, Alerts((unknown,), ("outage",)), SECOND)
    assert sent == ()  # whether the outage is over cannot be judged
    sent, state = advance(state, Alerts((unknown,)), 2 * SECOND)
    assert [(each.severity, each.text) for each in sent if not is_over(each)] == [("page", "t is unknown")]
    assert advance(state, Alerts((unknown,)), 3 * SECOND)[0] == ()


def test_without_the_outage_a_consequence_pages_at_once() -> None:
    """The account that cannot be read is not armed, so nothing pages for it."""
    sent, _ = advance(AlertState(), Alerts((Alert("trigger/t", "page", "t is unknown", part_of=("outage/main",)),)), 0)
    assert [each.severity for each in sent] == ["page"]


def steps() -> st.SearchStrategy[list[tuple[int, Step, bool]]]:
    """Ticks: the seconds since the one before, what is wrong by key, and whether everything else is unknown."""
    size = st.tuples(SEVERITIES, st.integers(1, 3))
    step = st.tuples(st.sampled_from([1, 30, 90, 4000]), st.dictionaries(st.sampled_from("abc"), size), st.booleans())
    return st.lists(step, max_size=25)


def alert(key: str, wrong: tuple[Severity, int], words: str = "wrong") -> Alert:
    severity, measure = wrong
    return Alert(f"part/{key}", severity, f"{key} is {words}", NoticeGroup("p", key), measure=(Decimal(measure),))


def run(
    course: Iterable[tuple[int, Step, bool]], *, restarted: bool = False, words: str = "wrong"
) -> list[tuple[Step, bool, tuple[Notice, ...], AlertState]]:
    """Each tick with its notices and the state after it. The group of a notice has the key as its scope."""
    found, now, state = [], START, AlertState()
    for number, (seconds, wrong, is_unknown) in enumerate(course):
        now += seconds * SECOND
        spoken = f"{words} {number}" if words else "wrong"
        alerts = tuple(alert(key, each, spoken) for key, each in wrong.items())
        notices, state = advance(state, Alerts(alerts, ("part",) if is_unknown else ()), now)
        state = read_state(encode_state(state)) if restarted else state
        found.append((wrong, is_unknown, notices, state))
    return found


def is_over(notice: Notice) -> bool:
    return notice.text.startswith("over since")


@given(steps())
def test_nothing_new_is_held_back(course: list[tuple[int, Step, bool]]) -> None:
    """What was never notified, or was last notified as over, is notified by the tick that finds it."""
    wrong_for_people: set[str] = set()
    for wrong, _, notices, _ in run(course):
        notified = {each.scope for each in notices if not is_over(each)}
        assert wrong.keys() - wrong_for_people <= notified
        wrong_for_people |= notified
        wrong_for_people -= {each.scope for each in notices if is_over(each)}


@given(steps())
def test_what_is_worse_is_never_held_back(course: list[tuple[int, Step, bool]]) -> None:
    """A severity or a measure above all since it appeared is notified at once, however often it has returned."""
    worst: dict[str, tuple[bool, int]] = {}
    for wrong, _, notices, _ in run(course):
        for notice in notices:
            if is_over(notice):
                worst.pop(notice.scope, None)
        for key, (severity, measure) in wrong.items():
            before = worst.get(key, (False, 0))
            if (severity == "page" and not before[0]) or measure > before[1]:
                assert key in {each.scope for each in notices if not is_over(each)}
            worst[key] = (severity == "page" or before[0], max(measure, before[1]))


@given(steps())
def test_what_is_over_is_resolved_exactly_once(course: list[tuple[int, Step, bool]]) -> None:
    """Never while it is wrong or unknown, never twice without a notice between, and always in the end."""
    open_keys: set[str] = set()
    lasting = [(3600, Step(), False)]
    for wrong, is_unknown, notices, _ in run([*course, *lasting]):
        over = [each.scope for each in notices if is_over(each)]
        assert len(over) == len(set(over)) and set(over) <= open_keys and not wrong.keys() & set(over)
        assert not (over and is_unknown)
        open_keys = (open_keys - set(over)) | {each.scope for each in notices if not is_over(each)}
    final = run([*course, *lasting, *lasting])[-1]
    assert final[3].active == ()


@given(
    st.dictionaries(st.sampled_from("abc"), st.tuples(SEVERITIES, st.integers(1, 3))), st.lists(st.integers(1, 9999))
)
def test_a_constant_set_of_alerts_makes_one_notice_each(wrong: Step, pauses: list[int]) -> None:
    """However long it lasts."""
    course = run([(seconds, wrong, False) for seconds in (1, *pauses)])
    assert sorted(each.scope for _, _, notices, _ in course for each in notices) == sorted(wrong)


@given(steps())
def test_a_restart_changes_nothing(course: list[tuple[int, Step, bool]]) -> None:
    """With the state stored after each tick and read before the next."""
    assert run(course, restarted=True) == run(course)


@given(steps())
def test_rewording_makes_no_notice(course: list[tuple[int, Step, bool]]) -> None:
    """The same course with a new text at every tick has notices of the same alerts at the same instants."""

    def places(words: str) -> list[tuple[int, str, str]]:
        notices = (each for _, _, issued, _ in run(course, words=words) for each in issued)
        return [(to_micros(each.as_of), each.scope, each.severity) for each in notices]

    assert places("reworded") == places("")
