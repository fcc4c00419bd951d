"""Guarantees about snapshots and queries whose answer has one wrong field."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest

from killswitch.conformance.case import closed_after, closing, needs
from killswitch.conformance.harness import Key, VenueHarness
from killswitch.conformance.mutations import (
    ChangedAnswer,
    WrongResult,
    faults,
    mutations,
    report_faults,
    rows_faults,
    sample,
)
from killswitch.conformance.order_answers import NAME, wrong_order_results
from killswitch.model.venue import VenueAdapter, VenueError

Read = Callable[[VenueAdapter], Awaitable[Any]]


class AnswerGuarantees:
    """A wrong number is never reported as a right one."""

    @pytest.mark.guarantee("G30")
    def test_a_wrong_field_is_never_a_wrong_number(self, harness: VenueHarness) -> None:
        """A field that is null, missing, of another type, not a number, negative, an unknown word, an empty list, a
        list for an object, or a repeated row: every fact is unchanged, or unknown with a reason, or the call fails
        and gives one; what was done is never reported as refused. A command runs all of them."""
        needs(harness, "answers")
        tried, wrong = harness.run(wrong_query_results(harness, most=harness.mutations))
        assert tried
        assert not wrong, "\n".join(map(str, wrong))
        done, refused = harness.run(wrong_order_results(harness, most=harness.mutations))
        assert done
        assert not refused, "\n".join(map(str, refused))


async def wrong_query_results(
    harness: VenueHarness, *, most: int | None = None, report: Callable[[WrongResult], None] = lambda _: None
) -> tuple[int, list[WrongResult]]:
    """Change every field of every answer in turn, or `most` of them; return how many were tried, and the wrong
    results."""
    first, second = harness.symbols
    book: dict[Key, Decimal] = {(first, "long"): Decimal(4), (second, "short"): Decimal(3)}
    reads = _reads(first, getattr(harness, "name", NAME))
    async with closed_after(harness), closed_after(await harness.open(book)) as venue:
        await _fill_account(harness, venue, (first, "long"))
        questions: dict[str, set[str]] = {}
        answers: dict[str, Any] = {}
        expected: dict[str, Any] = {}
        for call, read in reads.items():
            recorded: dict[str, Any] = {}
            expected[call] = await _outcome(
                harness, lambda name, it, recorded=recorded: _keep_longest(recorded, name, it), read
            )
            questions[call] = set(recorded)
            for name, answer in recorded.items():
                _keep_longest(answers, name, answer)
        found = [
            it for it in mutations(answers) if it.kind != "negative" or not it.path or it.path[-1] not in harness.signed
        ]
        chosen = found if most is None else sample(found, most)
        wrong = []
        for mutation in chosen:
            for call, read in reads.items():
                if _is_tried(mutation.question, questions, call):
                    seen = await _outcome(harness, mutation.change, read)
                    if complaints := _complaints(ChangedAnswer(mutation, harness.now()), call, expected[call], seen):
                        wrong.append(WrongResult(mutation, call, tuple(complaints)))
                        report(wrong[-1])
        return len(chosen), wrong


async def _fill_account(harness: VenueHarness, venue: VenueAdapter, key: Key) -> None:
    """Put a row of every kind into the account; a harness that offers only answers has them from the start."""
    await venue.snapshot()
    if harness.offers == {"answers"}:
        return
    await venue.submit(closing(key, Decimal(1), NAME))
    if "stops" in harness.offers:
        await harness.rest(key[0], "buy", Decimal(1))
        await harness.rest(key[0], "sell", Decimal(2), trigger=Decimal(50))
    if "flows" in harness.offers:
        await harness.flow(Decimal(500))


def _reads(symbol: str, name: str) -> Mapping[str, Read]:
    return {
        "snapshot": lambda venue: venue.snapshot(),
        "open_orders": lambda venue: venue.open_orders(),
        "find_order": lambda venue: venue.find_order(symbol, name),
        "fills": lambda venue: venue.fills(symbol, name),
    }


def _is_tried(question: str, questions_by_call: Mapping[str, set[str]], call: str) -> bool:
    """Whether the call is tried with a changed answer to the question; a question that every call asks, such as the
    rules, is tried in a snapshot only."""
    by_all = all(question in questions for questions in questions_by_call.values())
    return question in questions_by_call[call] and (call == "snapshot" or not by_all)


async def _outcome(harness: VenueHarness, change: Any, read: Read) -> object:
    async with closed_after(await harness.connect(change)) as venue:
        try:
            return await read(venue)
        except Exception as error:  # noqa: BLE001 - any error but a VenueError is a finding
            return error


def _complaints(trial: ChangedAnswer, call: str, expected: Any, seen: Any) -> list[str]:
    if isinstance(seen, VenueError):
        return [] if str(seen) else ["an error without a reason"]
    if isinstance(seen, Exception):
        return [f"{type(seen).__name__}: {seen}"]
    if call == "snapshot":
        return faults(trial, expected, seen)
    if call == "find_order":
        return report_faults(trial, expected, seen)
    if not seen and call == "fills" and isinstance(trial.mutation.value, str | int | float):
        return []  # the query used the order's number, which is another one now
    return rows_faults(trial, call, expected, seen)


def _keep_longest(recorded: dict[str, Any], question: str, answer: Any) -> Any:
    """Keep the longest answer to each question; return the answer."""
    if question not in recorded or len(json.dumps(answer)) > len(json.dumps(recorded[question])):
        recorded[question] = answer
    return answer
