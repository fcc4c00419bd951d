"""The pages of a backtest: one content as text, Markdown and HTML, self-contained, and all names escaped."""

from __future__ import annotations

import json
from datetime import timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.lab.campaign import RULES, BookRuns, Campaign, CampaignPart, FailedRun, Results
from killswitch.lab.families import Kind
from killswitch.lab.pages.answer import BacktestAnswer, build_answer, encode, policies_used
from killswitch.lab.pages.content import COLOURS, build_page, figures
from killswitch.render.chart import LEVEL_COLOURS
from killswitch.render.document import Page, Table, markdown, table_text, text
from killswitch.render.html import html
from tests.browser import measured_in_browser
from tests.runs import START, course, firing, liquidation, run, tried
from tests.worlds.firings import policy_of

HOSTILE = '<script>alert("x")</script> & | `$_{x}` ${7*7} {{ 7*7 }}'
VOID = {"meta", "br", "hr", "img", "link", "input"}


@pytest.fixture(scope="module")
def policies(repository: Path) -> PolicySet:
    from killswitch.accounts.opening import read_policies

    return read_policies([repository / "policies" / "futures-drawdown"]).policies


def answer_and_page(policies: PolicySet, results: Results) -> tuple[BacktestAnswer, Page]:
    """The answer and the page with charts."""
    parts = tuple(CampaignPart(each.market, each.member) for each in results.tried)
    campaign = Campaign({}, parts, RULES, None)  # type: ignore[arg-type] # it has been run
    found = build_answer(policies_used(policies), campaign, results, seed=7, missing=("m: no splits",))
    drawings = {(each.market, each.member.book.name): figures(each, "USDT") for each in results.tried}
    return found, build_page(found, results, policies, drawings)


def cell_borders(row: str) -> int:
    """The number of cell borders in a Markdown row."""
    return row.count("|") - row.count("\\|")


def book_with_curve(name: str = "b") -> BookRuns:
    """A book with a curve and two stages, of which the second closed only the hedge."""
    fired = (firing(1, ("BTC_USDT", "long")), firing(3, ("ETH_USDT", "short"), after="0", level=3, hedge=None))
    many = course(100_000, 99_000, 95_000, 96_000)
    return tried(
        run("staged", "96000", firings=fired, course=many), run("none", "97500.5", "0.31", course=many),
        run("close-all", "95000", "0.04", liquidations=(liquidation(),), course=many), name=name,
    )  # fmt: skip


class PageParser(HTMLParser):
    """What a browser would see: tags that close, and every reference to another resource."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            outside = name in {"src", "href", "xlink:href", "data", "action", "srcset"} and not (
                value or ""
            ).startswith("#")
            if outside or name.startswith("on"):
                self.fetched.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_html_is_well_formed_and_self_contained(policies: PolicySet) -> None:
    """Every tag closes; no script, no link, no source, no import, no url but its own clip paths."""
    source = html(answer_and_page(policies, Results((book_with_curve(),), (), 1, True, False))[1])
    reader = PageParser(source)
    assert reader.open == []
    assert reader.fetched == []
    assert {"script", "link", "iframe", "img", "object"}.isdisjoint(reader.tags)
    assert "@import" not in source
    assert source.count("url(") == source.count("url(#")
    assert "prefers-color-scheme:dark" in source


def test_every_chart_exists_for_wide_and_narrow_screens(policies: PolicySet) -> None:
    """Equity, P&L by side and positions, each twice, with its stages marked."""
    reader = PageParser(html(answer_and_page(policies, Results((book_with_curve(),), (), 1, True, False))[1]))
    assert reader.tags.count("svg") == 6
    page_text = " ".join(reader.words)
    for caption in ("Equity", "P&L by side, staged (before fees)", "Positions, staged (long above zero, short below)"):
        assert caption in page_text
    assert "1 trim" in page_text
    assert "longs" in page_text


@pytest.mark.parametrize("books", [1, 2])
def test_a_hostile_name_is_escaped(policies: PolicySet, books: int) -> None:
    """It is neither markup nor template in any form."""
    results = Results(
        tuple(book_with_curve(HOSTILE) for _ in range(books)),
        (FailedRun("m", HOSTILE, "none", HOSTILE),),
        books,
        False,
        False,
    )
    _, shown = answer_and_page(policies, results)
    reader = PageParser(html(shown))
    assert "script" not in reader.tags
    assert any(HOSTILE in words for words in reader.words)
    lines = markdown(shown).splitlines()
    assert not any(line.count("<script>") > line.count("\\<script\\>") for line in lines)
    assert any(line.startswith("|") and "alert" in line for line in lines)
    for above, below in pairwise(lines):
        if above.startswith("|") and below.startswith("|"):
            assert cell_borders(above) == cell_borders(below)
    assert HOSTILE.split(maxsplit=1)[0] in text(shown)


def test_a_name_cannot_control_the_terminal(policies: PolicySet) -> None:
    """Escape sequences in a book's name do not reach the screen."""
    _, shown = answer_and_page(
        policies, Results((book_with_curve("\x1b[2Jred"), book_with_curve()), (), 2, True, False)
    )
    assert "\x1b" not in text(shown)
    assert "[2Jred" in text(shown)


def test_the_verdict_compares_staging_with_the_alternatives(policies: PolicySet) -> None:
    """In plain words, at the top of every form."""
    found, shown = answer_and_page(policies, Results((book_with_curve(),), (), 1, True, False))
    assert found.verdict == (
        "Staging ended 1,500.50 USDT poorer than no protection and 1,000.00 USDT richer than closing everything at the "
        "first trigger.",
        "Its worst drawdown was 10.0%; with no protection 31.0%, with closing everything at the first trigger 4.0%.",
        "Both sides were closed in turn: first the longs, later their hedges.",
    )
    for form in (text(shown), markdown(shown), html(shown)):
        assert found.verdict[0] in form


def test_every_stage_is_described(policies: PolicySet) -> None:
    """When, why, what was closed, when it was verified, and whether the hedge was still held then."""
    shown = text(answer_and_page(policies, Results((book_with_curve(),), (), 1, True, False))[1])
    (line,) = (line for line in shown.splitlines() if "1 trim" in line)
    assert "2024-01-01T00:01:00Z" in line
    assert "equity.drawdown over 15m 5.12% >= 4.5%" in line
    assert "BTC_USDT long 1,000.00" in line
    assert "200,000.00 → 100,000.00" in line
    assert "after 3s" in line
    assert "open (100%)" in line


def test_an_unverified_close_is_marked(policies: PolicySet) -> None:
    """Nor does a stage that had nothing to close claim anything."""
    fired = (
        firing(1, ("BTC_USDT", "long"), ended="residual", verified_at=None, hedge=None, hedge_kept=None, cost=None),
        firing(2, ended=None, verified_at=None, hedge=None, hedge_kept=None),
    )
    runs = (run("staged", "1", firings=fired), run("none", "1"), run("close-all", "1"))
    shown = text(answer_and_page(policies, Results((tried(*runs),), (), 1, True, False))[1])
    first, second = (line for line in shown.splitlines() if "1 trim" in line)
    assert "never" in first
    assert "unknown" in first
    assert "nothing to close" in second


def test_a_partial_result_is_marked_in_every_form(policies: PolicySet) -> None:
    """With how much of it there is."""
    stopped = tried(run("staged", "1"), run("none", "1", complete=False), name="c")
    found, shown = answer_and_page(policies, Results((book_with_curve(), stopped), (), 70, False, True))
    warning = "This result is partial: stopped before its end. 1 of 70 books run to the end under every rule."
    assert warning in text(shown)
    assert warning in markdown(shown)
    assert warning in html(shown)
    assert json.loads(encode(found))["complete"] is False
    assert json.loads(encode(found))["stopped"] is True


def test_a_book_in_several_currencies_has_no_sums_and_the_page_states_it(policies: PolicySet) -> None:
    """12,000 USDT and 2,000,000 JPY are 2,012,000 of nothing, and a fall of that is no share of anything."""
    one = book_with_curve()
    (account,) = one.member.book.accounts
    other = account.model_copy(update={"account": "treasury", "currency": "JPY", "positions": ()})
    mixed = one.member.book.model_copy(update={"accounts": (account, other)})
    of_both = replace(one, member=replace(one.member, book=mixed))
    found, shown = answer_and_page(policies, Results((of_both,), (), 1, True, False))
    assert found.verdict[-1].startswith("The accounts of b are in JPY and USDT, and are added as numbers, without a")
    assert "say nothing" in " ".join(text(shown).split())


def test_an_empty_result_is_rendered(policies: PolicySet) -> None:
    """Stopped before the first book: a page, not a traceback."""
    found, shown = answer_and_page(policies, Results((), (), 3, False, True))
    assert found.verdict == ("No book was run to its end under every rule.",)
    assert "0 of 3 books" in text(shown)
    assert PageParser(html(shown)).open == []


def test_the_json_is_the_whole_answer_without_equity_curves(policies: PolicySet) -> None:
    """Every book with its positions, every run and firing, the summary; money is text, exact."""
    found, _ = answer_and_page(policies, Results((book_with_curve(), book_with_curve("c")), (), 2, True, False))
    read = json.loads(encode(found))
    assert read["format"] == "killswitch.backtest/v1"
    assert read["policies"]["names"] == ["futures-drawdown"]
    assert read["seed"] == 7
    book = read["books"][0]
    assert book["book"]["accounts"][0]["positions"][0]["symbol"] == "BTC_USDT"
    assert [each["rule"] for each in book["runs"]] == list(RULES)
    assert book["runs"][1]["final_equity"] == "97500.5"
    assert {each["course"] for each in book["runs"]} == {None}
    assert read["summary"]["groups"][0]["against"][0]["poorer"] == 2


def test_text_tables_keep_their_columns() -> None:
    """Numbers are right-aligned; a long cell is wrapped."""
    table = Table(("name", "n"), (("a " * 40, "1"), ("b", "1,000")), numbers=(1,), widest=48)
    lines = table_text(table, "").splitlines()
    assert len(lines) == 4
    assert {line.rstrip()[-1] for line in lines if "1" in line} == {"1", "0"}
    assert len({len(line) for line in (lines[0], lines[1], lines[-1])}) == 1


@pytest.mark.parametrize("columns", [80, 120])
def test_text_keeps_to_a_terminal_and_names_the_columns_that_it_loses(policies: PolicySet, columns: int) -> None:
    """Prose is wrapped, the last line names what is left out, and the cost of a firing never is."""
    _, shown = answer_and_page(policies, Results((book_with_curve(), book_with_curve("b")), (), 2, True, False))
    whole, fitted = text(shown), text(shown, columns)
    assert max(map(len, whole.splitlines())) > 120
    assert max(map(len, fitted.splitlines())) <= columns
    tables = [table for section in shown.sections if not section.folded for table in section.tables]
    heads = {word for table in tables for name in table.head for word in name.split()}
    assert heads <= set(fitted.replace(",", " ").replace(";", " ").split())
    left_out = fitted[fitted.rindex("Left out: ") :]
    assert "`-o wide` shows all." in " ".join(left_out.split())
    assert "cost" not in left_out.split()


def test_a_colour_has_one_meaning_on_the_page() -> None:
    """Rules, sides and levels of stages share no colour, in any of the charts."""
    assert len(set(COLOURS.values())) == len(COLOURS)
    drawn = {figure.caption.split(" ")[0]: figure.wide for figure in figures(book_with_curve(), "USDT")}
    rules, sides = {COLOURS[rule] for rule in RULES}, {COLOURS["longs"], COLOURS["shorts"]}
    used = {name: {colour for colour in rules | sides if colour in svg} for name, svg in drawn.items()}
    assert used["Equity"] == rules
    assert used["P&L"] == sides
    assert used["Positions,"] <= sides
    assert set(LEVEL_COLOURS).isdisjoint(rules | sides)


def test_the_title_names_policy_and_market(policies: PolicySet) -> None:
    """A tab, and a page that somebody was sent, say what was tested."""
    one = answer_and_page(policies, Results((book_with_curve(),), (), 1, True, False))[1]
    assert one.title == "Backtest of futures-drawdown in m"


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_does_not_scroll_sideways_in_a_browser(policies: PolicySet, tmp_path: Path, width: int) -> None:
    """Measured in headless Chromium: tables scroll in their own boxes, and the drawing for the width is shown."""
    shown = html(
        answer_and_page(
            policies, Results((book_with_curve("a long name " * 12), book_with_curve("c")), (), 2, True, False)
        )[1]
    )
    measured = measured_in_browser(shown, tmp_path, width)
    assert measured["page"] <= width
    assert (measured["wide"], measured["narrow"]) == (("none", "block") if width == 360 else ("block", "none"))


def test_the_hours_around_the_first_stage_have_a_chart_of_their_own() -> None:
    """In a run that is much longer than they are."""
    many = course(*[100_000.0] * 4000)
    late = run("staged", "1", course=many, firings=(firing(2000, ("BTC_USDT", "long")),))
    drawn = figures(tried(late), "USDT")
    assert [figure.caption for figure in drawn][1] == "Equity around the first stage that fired (2024-01-02)"
    assert START + timedelta(minutes=2000) == late.firings[0].at


def test_a_run_without_an_equity_curve_has_no_chart() -> None:
    """There is no data to draw."""
    assert figures(tried(run("staged", "1")), "USDT") == ()


def test_the_effect_of_staging_is_shown_for_each_market_and_kind(policies: PolicySet) -> None:
    """Not only in a folded table: by the worst drawdown and the final equity, beside none and close-all."""

    def book(market: str, kind: Kind, final: str, fall: str) -> BookRuns:
        return tried(
            run("staged", final, fall), run("none", "97000", "0.31"), run("close-all", "95000", "0.04"),
            name=f"{market} {kind}", market=market, kind=kind,
        )  # fmt: skip

    many = (
        book("m", "hedged", "98000", "0.2"), book("m", "split", "96000", "0.2"), book("n", "hedged", "98000", "0.31"),
        book("n", "split", "97000", "0.31"),
    )  # fmt: skip
    shown = answer_and_page(policies, Results(many, (), 4, True, False))[1]
    (section,) = (each for each in shown.sections if each.title.startswith("Where staging helps"))
    assert not section.folded
    assert [(row[0], row[2]) for row in section.tables[0].rows] == [
        ("m, hedged", "helps"),
        ("m, split", "at a price"),
        ("n, hedged", "does not help"),
        ("n, split", "changes nothing"),
    ]
    assert section.tables[0].rows[1][3:] == ("20.0%", "31.0%", "4.0%", "96.0%", "97.0%", "95.0%")


def test_signals_without_look_ahead_are_named_on_the_page(policies: PolicySet) -> None:
    """Who waits for a slow backtest reads which signals make every bar a tick; a fall of equity is none of them."""
    falls = 'equity.drawdown("15m") > 0.5'
    moves = 'exposure.margin_ratio > 0.5 || market.spread("BTC_USDT") > 0.1 || equity.drawdown("1h") > 0.1'
    rows = []
    for condition in (falls, moves):
        _, page = answer_and_page(
            policy_of(f"when: '{condition}'"), Results((book_with_curve(),), (), 1, is_complete=True, is_stopped=False)
        )
        rows.append(dict(page.facts.rows).get("No look-ahead"))
    assert rows == [None, "exposure.margin_ratio and market.spread: every bar was ticked, none skipped"]
