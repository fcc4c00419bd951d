"""The whole answer of `ksctl backtest`, format `killswitch.backtest/v1`: what every page of it is made of."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from killswitch.graph.nodes import PolicySet
from killswitch.lab.campaign import Campaign, Fault, Results, Tried
from killswitch.lab.outcome import BACKTEST_FORMAT, Run
from killswitch.lab.summary import Summary, summarise


class PoliciesUsed(Struct, frozen=True):
    """Which policies were tried: their names, content digest, git commit where there is one, and variant."""

    names: tuple[str, ...]
    digest: str
    commit: str | None
    variant: str | None


class BookTried(Struct, frozen=True):
    """One book, as its YAML would say it, in one market; `runs` in the order of the rules, without courses."""

    market: str
    kind: str
    book: dict[str, object]
    runs: tuple[Run, ...]


class Answer(Struct, frozen=True):
    """`complete` false: stopped (`stopped`), or something could not be run (`not_run`); what is there is whole.

    `missing` says in words which books a market has too few symbols for.
    """

    format: str
    complete: bool
    stopped: bool
    policies: PoliciesUsed
    seed: int
    rules: tuple[str, ...]
    books_wanted: int
    verdict: tuple[str, ...]
    books: tuple[BookTried, ...]
    summary: Summary
    missing: tuple[str, ...]
    not_run: tuple[Fault, ...]


def used(policies: PolicySet, variant: str | None = None) -> PoliciesUsed:
    """What an answer says of a policy set."""
    names = tuple(graph.policy for graph in policies.graphs)
    return PoliciesUsed(names, policies.digest, policies.commit, variant)


def answer(
    policies: PoliciesUsed, campaign: Campaign, results: Results, *, seed: int, missing: Sequence[str]
) -> Answer:
    """The answer for the results of `campaign`."""
    from killswitch.lab.pages.verdict import verdict

    summary = summarise(results.tried, campaign.rules)
    return Answer(
        format=BACKTEST_FORMAT,
        complete=results.complete,
        stopped=results.stopped and not results.complete,
        policies=policies,
        seed=seed,
        rules=campaign.rules,
        books_wanted=results.wanted,
        verdict=verdict(results, campaign.rules, summary),
        books=tuple(_tried(each) for each in results.tried),
        summary=summary,
        missing=tuple(missing),
        not_run=results.faults,
    )


def encode(whole: Answer) -> bytes:
    """As JSON, indented: people read it too. Decimals are text, instants RFC 3339."""
    return msgspec.json.format(msgspec.json.encode(whole), indent=2)


def _tried(each: Tried) -> BookTried:
    book = each.member.book.model_dump(mode="json")
    runs = tuple(msgspec.structs.replace(run, course=None) for run in each.runs)
    return BookTried(each.market, each.member.kind, book, runs)
