"""The answer of a backtest in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from killswitch.lab.campaign import CLOSE_ALL, IN_PROPORTION, NONE, STAGED, BookRuns, Results
from killswitch.lab.outcome import Run
from killswitch.lab.summary import Against, Summary, in_turn
from killswitch.render.formats import count_of, instant, listed, money

NAMES = {
    STAGED: "staging",
    NONE: "no protection",
    CLOSE_ALL: "closing everything at the first trigger",
    IN_PROPORTION: "the same cuts made in proportion",
}
"""The rules, as sentences name them."""


def verdict(results: Results, rules: Sequence[str], summary: Summary) -> tuple[str, ...]:
    """Return sentences about the one book, or about all books together."""
    others = [rule for rule in rules if rule != STAGED]
    if len(results.tried) == 1 and results.wanted == 1:
        found = _of_one(results.tried[0], others)
    else:
        found = _of_many(summary, currency_of(results.tried))
    return (*found, *_mixed_sums(results.tried))


def partial(results: Results, rules: Sequence[str]) -> str:
    """Return what a result lacks; empty for a complete one."""
    if results.is_complete:
        return ""
    why = "stopped before its end" if results.is_stopped else "not everything could be run"
    done = sum(all((run := each.run(rule)) is not None and run.complete for rule in rules) for each in results.tried)
    return (
        f"This result is partial: {why}. {done} of {count_of(results.wanted, 'book')} run to the end under every rule."
    )


def percent(share: Decimal) -> str:
    """Format a share: `17.7%`."""
    return f"{share:.1%}"


def currency_of(tried: Sequence[BookRuns]) -> str | None:
    """Return the currency of all books; None where they differ."""
    found = {account.currency for each in tried for account in each.member.book.accounts}
    return found.pop() if len(found) == 1 else None


def _mixed_sums(tried: Sequence[BookRuns]) -> Iterator[str]:
    """That amounts of a book in several currencies are no sums: bars have no rate between them."""
    for book in {each.member.book.name: each.member.book for each in tried}.values():
        currencies = sorted({account.currency for account in book.accounts})
        if len(currencies) > 1:
            yield (
                f"The accounts of {book.name} are in {listed(currencies)}, and are added as numbers, without a rate: "
                "its equity, its drawdown and what it ended with say nothing. Write a book for each currency."
            )


def _of_one(tried: BookRuns, others: Sequence[str]) -> Iterator[str]:
    staged = tried.run(STAGED)
    if staged is None:
        return
    if not staged.firings:
        yield "No stage fired: the policies did not change this book."
    compared = [(rule, run) for rule in others if (run := tried.run(rule)) is not None]
    if compared:
        currency = currency_of([tried])
        yield f"Staging ended {listed([_compared_with(rule, staged, run, currency) for rule, run in compared])}."
        falls = ", ".join(f"with {NAMES[rule]} {percent(run.worst_drawdown)}" for rule, run in compared)
        yield f"Its worst drawdown was {percent(staged.worst_drawdown)}; {falls}."
    if staged.firings and staged.worst_at < staged.firings[0].at:
        yield f"It was reached at {instant(staged.worst_at)}, before the first stage fired."
    turn = in_turn(tried)
    if turn is not None:
        yield f"Both sides were closed in turn: first the {turn.first}s, later their hedges."


def _of_many(summary: Summary, currency: str | None) -> Iterator[str]:
    if not summary.groups:
        yield "No book was run to its end under every rule."
        return
    kinds = [group for group in summary.groups if group.market is None and group.kind]
    for group in kinds or summary.groups[:1]:
        of = f"Of {count_of(group.books, f'{group.kind} book' if group.kind else 'book')}"
        for against in group.against:
            yield f"{of}, {_compared(against, currency)}."
    overall = summary.groups[0]
    if summary.in_turn:
        count = len(summary.in_turn)
        yield (
            f"In {count} of {count_of(overall.books, 'book')} both sides were closed in turn: the losing side first, "
            "and later its hedge."
        )


def _compared(against: Against, currency: str | None) -> str:
    return (
        f"staging ended richer than {NAMES[against.rule]} in {against.richer}, poorer in {against.poorer} "
        f"({_difference(against.difference_mean, currency)} on average); its worst drawdown was smaller in "
        f"{against.smaller_drawdown}, greater in {against.greater_drawdown}"
    )


def _compared_with(rule: str, staged: Run, other: Run, currency: str | None) -> str:
    difference = staged.final_equity - other.final_equity
    return f"{_difference(difference, currency)} {'than' if difference else 'as'} {NAMES[rule]}"


def _difference(amount: Decimal, currency: str | None) -> str:
    if not amount:
        return "as rich"
    return f"{money(abs(amount), currency)} {'richer' if amount > 0 else 'poorer'}"
