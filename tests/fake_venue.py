"""The base of fake venues: the test says what goes wrong, call by call; the venue below it stays honest.

`HonestVenue` keeps a book of its own, `ScriptedVenue` shows the account that the test gives.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from msgspec import Struct

from killswitch.model.venue import VenueAdapter

VenueCall = Literal["snapshot", "submit", "find_order", "open_orders", "fills", "cancel"]
Condition = Callable[..., object]
"""Of the call's arguments: whether a deviation applies to it."""
Answer = TypeVar("Answer")
ALWAYS = 10**9


def _any_call(*_: object) -> bool:
    return True


class Deviation(Struct):
    """What happens at a call instead of, or after, what the venue does. `left`: how many calls it still applies to."""

    call: VenueCall
    left: int
    when: Condition
    error: BaseException | None = None
    is_done: bool = True
    change: Callable[[Any], Any] | None = None

    def takes(self, arguments: tuple[Any, ...]) -> bool:
        """Whether it applies to a call with these arguments; then one use of it is gone."""
        if self.left <= 0 or not self.when(*arguments):
            return False
        self.left -= 1
        return True


class FakeVenue(VenueAdapter):
    """A venue whose calls may deviate from what it does; a call that is decorated with `deviating` asks for it."""

    def __init__(self) -> None:
        self.received: list[tuple[str, ...]] = []
        """The requests as they arrive: the name of the call, then the symbols and ids in it."""
        self._deviations: list[Deviation] = []

    def fail(
        self,
        call: VenueCall,
        error: BaseException,
        *,
        times: int = ALWAYS,
        when: Condition = _any_call,
        is_done: bool = False,
    ) -> Deviation:
        """Raise `error` at the next `times` of these calls: before the venue does anything, or after it `is_done`."""
        return self._add(Deviation(call, times, when, error=error, is_done=is_done))

    def change(
        self, call: VenueCall, change: Callable[[Any], Any], *, times: int = ALWAYS, when: Condition = _any_call
    ) -> Deviation:
        """Replace the answer of the next `times` of these calls by `change(answer)`; it may do something, too."""
        return self._add(Deviation(call, times, when, change=change))

    def requests_of(self, call: VenueCall) -> int:
        """How many of these calls have arrived."""
        return sum(name == call for name, *_ in self.received)

    def recover(self) -> None:
        """Deviate no more."""
        self._deviations.clear()

    def _add(self, deviation: Deviation) -> Deviation:
        self._deviations.append(deviation)
        return deviation

    async def deviate(self, call: str, arguments: tuple[Any, ...], done: Callable[[], Awaitable[Any]]) -> Any:
        """Perform a call, with the deviations that apply to it in the order in which they were declared."""
        self.received.append((call, *(each if isinstance(each, str) else each.symbol for each in arguments)))
        mine = [each for each in self._deviations if each.call == call]
        for each in mine:
            if each.error is not None and not each.is_done and each.takes(arguments):
                raise each.error
        answer = await done()
        for each in mine:
            if each.is_done and each.takes(arguments):
                if each.error is not None:
                    raise each.error
                assert each.change is not None
                answer = each.change(answer)
        return answer


V = TypeVar("V", bound=FakeVenue)
P = ParamSpec("P")
_Call = Callable[Concatenate[V, P], Coroutine[Any, Any, Answer]]


def deviating(method: _Call[V, P, Answer]) -> _Call[V, P, Answer]:
    """Let a FakeVenue's call deviate."""

    @functools.wraps(method)
    async def call(self: V, /, *arguments: P.args, **named: P.kwargs) -> Answer:
        made = functools.partial(method, self, *arguments, **named)
        answer: Answer = await self.deviate(method.__name__, arguments, made)
        return answer

    return call
