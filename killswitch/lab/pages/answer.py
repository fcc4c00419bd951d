"""The complete answer of `ksctl backtest`, format `killswitch.backtest/v1`, from which every page is made."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.lab.campaign import BookRuns, Campaign, FailedRun, Results
from killswitch.lab.outcome import BACKTEST_FORMAT, Run
from killswitch.lab.summary import Summary, summarise


class PoliciesUsed(Struct, frozen=True):
    """The tested policies: their names, content digest, git commit where there is one, and variant."""

    names: tuple[str, ...]
    digest: str
    commit: str | None
    variant: str | None


class BookAnswer(Struct, frozen=True):
    """One book, as in its YAML, in one market; `runs` in the order of the rules, without equity curves."""

    market: str
    kind: str
    book: dict[str, object]
    runs: tuple[Run, ...]


class BacktestAnswer(Struct, frozen=True):
    """`complete` is false if the campaign was stopped (`stopped`) or a run failed (`not_run`); the runs given are
    whole.

    `missing` describes the books for which a market has too few symbols.
    """

    format: str
    complete: bool
    stopped: bool
    policies: PoliciesUsed
    seed: int
    rules: tuple[str, ...]
    books_wanted: int
    verdict: tuple[str, ...]
    books: tuple[BookAnswer, ...]
    summary: Summary
    missing: tuple[str, ...]
    not_run: tuple[FailedRun, ...]


def policies_used(policies: PolicySet, variant: str | None = None) -> PoliciesUsed:
    """Describe a policy set."""
    names = tuple(graph.policy for graph in policies.graphs)
    return PoliciesUsed(names, policies.digest, policies.commit, variant)


def build_answer(
    policies: PoliciesUsed, campaign: Campaign, results: Results, *, seed: int, missing: Sequence[str]
) -> BacktestAnswer:
    """Return the answer for the results of `campaign`."""
    from killswitch.lab.pages.verdict import verdict

    summary = summarise(results.tried, campaign.rules)
    return BacktestAnswer(
        format=BACKTEST_FORMAT,
        complete=results.is_complete,
        stopped=results.is_stopped and not results.is_complete,
        policies=policies,
        seed=seed,
        rules=campaign.rules,
        books_wanted=results.wanted,
        verdict=verdict(results, campaign.rules, summary),
        books=tuple(_book_answer(each) for each in results.tried),
        summary=summary,
        missing=tuple(missing),
        not_run=results.faults,
    )


def encode(answer: BacktestAnswer) -> bytes:
    """Encode as indented JSON. Decimals are text, instants RFC 3339."""
    return msgspec.json.format(msgspec.json.encode(answer), indent=2)


def _book_answer(each: BookRuns) -> BookAnswer:
    book = each.member.book.model_dump(mode="json")
    runs = tuple(replace(run, course=None) for run in each.runs)
    return BookAnswer(each.market, each.member.kind, book, runs)
