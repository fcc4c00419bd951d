"""Submissions and cancels whose answer has one wrong field.

The venue has done what was requested, and its answer is damaged. A right result is the report of the undamaged answer,
a weaker report of an order that goes on, or an error that leaves the status open, so that closing queries it. A wrong
result is a definite refusal, after which the order is sent a second time, or a fill that never happened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from itertools import count
from typing import Any, Final

from killswitch.conformance.case import closed_after, closing
from killswitch.conformance.harness import Key, VenueHarness
from killswitch.conformance.mutations import Mutation, WrongResult, mutations, sample
from killswitch.model.venue import (
    FateUnknownError,
    MalformedAnswerError,
    OrderReport,
    OrderRequest,
    VenueAdapter,
    VenueError,
)

SIZE: Final = Decimal("0.01")
"""Contracts of each order, so small that the position lasts for all of them."""
BOOK: Final = Decimal(150)
BATCH: Final = 2
NAME: Final = "ks0001"
Act = Callable[[VenueAdapter], Awaitable[Any]]


PreparedCall = tuple[Act, Callable[[], bool]]
"""A call to make, and the test whether the venue itself has carried it out."""
Prepare = Callable[[VenueAdapter], Awaitable[PreparedCall]]


class _Answers:
    """Records the answers that one adapter receives, and applies a mutation to them."""

    def __init__(self) -> None:
        self.recorded: dict[str, Any] = {}
        self.mutation: Mutation | None = None

    def __call__(self, question: str, answer: Any) -> Any:
        self.recorded[question] = answer
        return answer if self.mutation is None else self.mutation.change(question, answer)


async def wrong_order_results(
    harness: VenueHarness, *, most: int | None = None, report: Callable[[WrongResult], None] = lambda _: None
) -> tuple[Mapping[str, int], list[WrongResult]]:
    """Change every field of the answers to a submit, a batch and a cancel in turn, or `most` of each; return how
    many were tried of each call, and the wrong results. Calls that the venue does not offer are left out."""
    first, second = harness.symbols
    key: Key = (first, "long")
    venue = await harness.open({key: BOOK, (second, "short"): Decimal(3)})
    await venue.close()
    answers, wrong, tried = _Answers(), [], {}
    async with closed_after(harness), closed_after(await harness.connect(answers)) as venue:
        await venue.snapshot()
        for call, prepare in _acts(harness, key).items():
            done = await _baseline(venue, prepare, answers)
            if done is None:
                continue
            expected, found, last_question = done
            chosen = found if most is None else sample(found, most)
            tried[call] = len(chosen)
            for mutation in chosen:
                act, is_done = await prepare(venue)
                answers.recorded.clear()
                seen = await _act(venue, act, answers, mutation)
                if complaints := complaints_of(expected, seen, is_done=is_done() and last_question in answers.recorded):
                    wrong.append(WrongResult(mutation, call, tuple(complaints)))
                    report(wrong[-1])
    return tried, wrong


def _acts(harness: VenueHarness, key: Key) -> Mapping[str, Prepare]:
    """The calls that this harness supports, each with its preparation. A harness that offers only answers returns the
    same ones to every call, and counts every call as done."""
    numbers, is_typed = count(1), harness.offers == {"answers"}

    def order() -> OrderRequest:
        name = getattr(harness, "name", NAME) if is_typed else f"ks{next(numbers):05}"
        return closing(key, getattr(harness, "order_size", SIZE), name)

    def is_accepted(*requests: OrderRequest) -> bool:
        return is_typed or any(harness.taken(it.client_order_id) for it in requests)

    async def submit(_: VenueAdapter) -> PreparedCall:
        request = order()
        return lambda venue: venue.submit(request), lambda: is_accepted(request)

    async def submit_batch(venue: VenueAdapter) -> PreparedCall:
        requests = [order() for _ in range(BATCH)]
        if (batches := venue.batches) is None:
            raise NotImplementedError("it sends orders one by one")
        return lambda _: batches.submit(requests), lambda: is_accepted(*requests)

    async def cancel(venue: VenueAdapter) -> PreparedCall:
        if not is_typed:
            await harness.rest(key[0], "buy", Decimal(1))
        number = (await venue.open_orders())[-1].id
        before = 0 if is_typed else harness.resting()
        return lambda it: it.cancel(key[0], number), lambda: is_typed or harness.resting() < before

    return {"submit": submit, "submit_batch": submit_batch, "cancel": cancel}


async def _baseline(venue: VenueAdapter, prepare: Prepare, answers: _Answers) -> tuple[Any, list[Mutation], str] | None:
    """The result with unchanged answers, their mutations, and the question that carried it out, which is the last
    one; None where the venue does not offer the call."""
    try:
        act, _ = await prepare(venue)
        answers.recorded.clear()
        result = await act(venue)
    except (VenueError, NotImplementedError, IndexError):
        return None
    return result, mutations(answers.recorded, zeros=True), ["", *answers.recorded][-1]


async def _act(venue: VenueAdapter, act: Act, answers: _Answers, mutation: Mutation) -> Any:
    answers.mutation = mutation
    try:
        return await act(venue)
    except Exception as error:  # noqa: BLE001 - any error but a VenueError is a finding
        return error
    finally:
        answers.mutation = None


def complaints_of(expected: Any, seen: Any, *, is_done: bool) -> list[str]:
    """What is wrong with `seen`, the result of a changed answer; `expected` is the result of the unchanged one."""
    if isinstance(seen, Exception):
        return _of_error(seen, is_done=is_done)
    if isinstance(expected, OrderReport):
        return _of_report(expected, seen)
    if isinstance(expected, Sequence):
        if len(seen) != len(expected):
            return [f"{len(seen)} answers to {len(expected)} orders"]
        return [
            it for one, other in zip(expected, seen, strict=True) for it in complaints_of(one, other, is_done=is_done)
        ]
    return [] if is_done else ["it is reported as done, and was not"]


def _of_error(seen: Exception, *, is_done: bool) -> list[str]:
    if isinstance(seen, FateUnknownError | MalformedAnswerError) or (isinstance(seen, VenueError) and not is_done):
        return [] if str(seen) else ["an error without a reason"]
    return [f"it was done, and is reported as not done: {type(seen).__name__}: {seen}"]


def _of_report(expected: OrderReport, seen: Any) -> list[str]:
    """An open order may be reported with less; an order that has ended must be reported with the fills that it has."""
    if not isinstance(seen, OrderReport):
        return [f"{type(seen).__name__} is no report"]
    found = []
    if seen.filled > expected.filled or (seen.state != "open" and seen.filled != expected.filled):
        found.append(f"it is {seen.state} with {seen.filled} filled, and was {expected.state} with {expected.filled}")
    if seen.state == "rejected":
        found.append("it is reported as rejected")
    if seen.amount != expected.amount and seen.state != "open":
        found.append(f"its amount is {seen.amount}, and was {expected.amount}")
    if seen.average_price not in (None, expected.average_price):
        found.append(f"its price is {seen.average_price}, and was {expected.average_price}")
    return found
