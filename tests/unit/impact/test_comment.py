"""The comment: its limit, what is never left out, and texts of strangers that have no effect."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from msgspec.structs import replace

from killswitch.lab.impact.firing_changes import ComparedFiring
from killswitch.lab.impact.replays import RecordingReplay, SpanReplay
from killswitch.operations.impact.classification import Classification, ClassifiedChange, PolicyVerdict
from killswitch.operations.impact.document_differences import DocumentDifference, KeyDifference
from killswitch.operations.pull_request.answer import ImpactAnswer, ImpactSubject, SideFacts, UnknownPart
from killswitch.operations.pull_request.comment import CommentTooLongError, comment_text, failure_comment, inert, marker
from killswitch.operations.pull_request.live_arrival import LiveArrival
from killswitch.operations.pull_request.page import impact_page
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.render.html import html
from killswitch.source.candidate import ArrivalFiring
from tests.runs import START, run

LIMIT = 65_536
"""The most characters of a comment at GitHub, by its documentation of the API."""
SUBJECT = ImpactSubject("desk/policies", "prod", "eu")
SIDES = SideFacts("main", "a" * 40, "sha256:" + "1" * 64, None), SideFacts("change", None, "sha256:" + "2" * 64, None)


def answer(
    changes: Sequence[ClassifiedChange], differences: Sequence[DocumentDifference] = (), **more: object
) -> ImpactAnswer:
    parts = (("scope", "EQUIVALENT"), ("demand", "LOOSENING"))
    policies = tuple(PolicyVerdict(each.policy, parts, each.verdict) for each in changes)  # type: ignore[arg-type] # two parts will do
    known = Classification("LOOSENING", policies, tuple(changes))
    shown = tuple(differences) or (difference("Policy", "a"),)
    return ImpactAnswer(SUBJECT, *SIDES, shown, known, **more)  # type: ignore[arg-type] # of any part


def difference(kind: str, name: str, text: str = "7%") -> DocumentDifference:
    key = KeyDifference("spec.triggers.fall.at_least", text, "9%")
    return DocumentDifference(kind, name, "changed", "policies/a.yaml:3", (key,), None, "")


def loosenings(count: int, length: int = 120) -> list[ClassifiedChange]:
    scenario = "\n".join(f"line: {number}" for number in range(30))
    return [
        ClassifiedChange(f"policy-{number:03}", "demand", "LOOSENING", "why " * (length // 4), scenario)
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [1, 5, 50, 500, 1500])
def test_a_comment_fits_and_names_every_loosening(count: int) -> None:
    """With few there are scenarios, with many shorter reasons, and with very many the names; never one less."""
    changes = loosenings(count)
    differences = [difference("Policy", each.policy) for each in changes]
    text = comment_text(answer(changes, differences))
    assert len(text) <= LIMIT
    assert [each.policy for each in changes if each.policy not in text] == []
    assert text.splitlines()[0].startswith("**LOOSENING: ")
    assert text.rstrip().endswith(marker(SUBJECT))


def test_a_loosening_is_named_before_what_tightens_gets_its_room() -> None:
    """500 loosenings and 500 tightenings: the former are all named, the latter are counted."""
    harder = [ClassifiedChange(f"hard-{n}", "demand", "TIGHTENING", "more " * 50) for n in range(500)]
    text = comment_text(answer([*loosenings(500), *harder]))
    assert len(text) <= LIMIT
    assert all(f"policy-{number:03}" in text for number in range(500))
    assert "500 tighten or change nothing" in text


def test_documents_that_are_no_longer_loaded_are_named_in_a_short_comment_too() -> None:
    """They are loosenings without a proof."""
    gone = [
        DocumentDifference("Account", f"account-{n:03}", "no longer loaded", "a.yaml:1", (), "LOOSENING", "gone " * 40)
        for n in range(500)
    ]
    text = comment_text(answer(loosenings(300), gone))
    assert len(text) <= LIMIT
    assert all(f"account-{n:03}" in text for n in range(500)) and all(f"policy-{n:03}" in text for n in range(300))


def test_what_cannot_even_be_named_is_an_error_and_no_shorter_list() -> None:
    """Ten thousand names of twenty letters do not fit: then there is no comment that looks complete."""
    with pytest.raises(CommentTooLongError):
        comment_text(answer([ClassifiedChange(f"p{n:019}", "demand", "LOOSENING", "") for n in range(10_000)]))


HOSTILE = (
    "<script>alert(1)</script>", "</summary></details><h1>TIGHTENING</h1>", "| x | y |\n| --- | --- |", "**bold** _it_",
    "[link](https://evil.example)", "![img](https://evil.example/x.png)", "https://evil.example/x", "www.evil.example",
    "@org/everyone", "#1 GH-1 org/repo#12", "```\ncode\n```", "`a`", "-->", "<!-- killswitch-impact repository=x -->",
    "\x1b[31mred\x1b[0m", "\u202egnitaool", "line\r\n\r\n# heading", "mailto:a@evil.example", "&lt;b&gt;", "$x$ ~~y~~",
    "- [x] done", "a\x00b", "\u2028\u2029",
)  # fmt: skip


def hostile_answer(text: str) -> ImpactAnswer:
    """A change in which every text of a stranger is this one."""
    firing = ArrivalFiring(text, text, text, text)
    live = LiveArrival(datetime(2026, 3, 2, tzinfo=UTC), 5.0, text, (firing,), (firing,), (firing,))
    change = ClassifiedChange(text, "demand", "LOOSENING", text, f"# {text}\nname: {text}\n")
    without = ClassifiedChange(text, "memory", "TIGHTENING", text, "", text)
    gone = DocumentDifference(text, text, "no longer loaded", text, (), "LOOSENING", text)
    changed = DocumentDifference(text, text, "changed", text, (KeyDifference(text, text, text),), "UNDECIDED", text)
    failed = SpanReplay(text, "crash", text, None, None, (), text)
    fired = ComparedFiring(text, text, text, 1, "no more", START, None, Decimal(1), None, True)
    replayed = SpanReplay(text, "crash", text, run("base", "1"), run("head", "2"), (fired,))
    return answer(
        [change, without], [gone, changed], arrival=live, spans=(failed, replayed),
        recordings=(RecordingReplay(text, 3),), missing=(UnknownPart("KS8504", text),),
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_stranger_is_markup_a_link_a_mention_or_a_control_character(text: str) -> None:
    """The comment is rendered as a forge does, with HTML allowed: the elements are those of a harmless name."""
    harmless, shown = (comment_text(hostile_answer(each)) for each in ("harmless", text))
    assert all(each.isprintable() or each == "\n" for each in shown)
    assert elements(shown) == elements(harmless)
    body = shown.replace(marker(SUBJECT), "")
    outside_code = "".join(part for number, part in enumerate(body.split("```")) if number % 2 == 0)
    assert "@org" not in outside_code and "://evil" not in outside_code and "www.evil" not in outside_code
    assert shown.count("<!-- killswitch-impact") == 1, "no other text is a marker"


def elements(text: str) -> list[str]:
    """The kinds of all elements of the rendered Markdown, with the raw HTML that passes as it is."""
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False}).enable("table")
    found = []
    for token in parser.parse(text):
        if token.type == "html_block":
            found.append("html " + "".join(each for each in token.content if each in "<>"))
        elif token.type == "inline":
            found += [each.type for each in token.children or () if each.type not in ("text", "text_special")]
        else:
            found.append(token.type)
    return found


@given(st.text(max_size=80))
def test_an_inert_text_is_one_line_of_plain_text(text: str) -> None:
    """Whatever the characters are: one paragraph, text only, no character that is not printable."""
    shown = inert(text)
    assert shown.isprintable()
    rendered = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(f"x {shown} x")
    assert [token.type for token in rendered] == ["paragraph_open", "inline", "paragraph_close"]
    assert {child.type for child in rendered[1].children or ()} <= {"text", "text_special"}


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_stranger_is_an_element_of_the_page(text: str) -> None:
    """The page has as many elements as that of a harmless name."""
    harmless, shown = (html(impact_page(hostile_answer(each))) for each in ("harmless", text))
    assert shown.count("<") == harmless.count("<")
    assert all(each.isprintable() or each == "\n" for each in shown)


def test_a_failure_names_its_reason_without_markup() -> None:
    """The message of an exception may hold what a stranger wrote."""
    text = failure_comment(SUBJECT, "<b>@org</b>\x1b[0m")
    assert "<b>" not in text.replace("\\<b", "") and "@org" not in text and "\x1b" not in text


def test_a_witness_is_inside_its_fence_whatever_it_holds() -> None:
    """A scenario with a fence of its own gets a longer one."""
    change = ClassifiedChange("a", "demand", "LOOSENING", "why", "a: |\n  ```\n  <b>\n")
    text = comment_text(answer([change]))
    assert "````yaml" in text
    assert elements(text).count("fence") + elements(text).count("code_block") == 1


def test_a_head_with_a_thousand_mistakes_has_a_comment_that_counts_them() -> None:
    """They are no loosenings: the first are named."""
    mistake = Diagnostic("KS2001", "error", "wrong " * 30, "mend " * 30, "a.yaml", 1, 1, 1, "")
    many = tuple(replace(mistake, line=line) for line in range(1, 1001))
    broken = UnknownPart("KS8502", "the head does not compile", prevents=True)
    text = comment_text(ImpactAnswer(SUBJECT, *SIDES, missing=(broken,), diagnostics=many))
    assert len(text) <= LIMIT
    assert "a.yaml:1:1: KS2001" in text and "and 961 more" in text
