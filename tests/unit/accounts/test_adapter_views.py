"""A wrapper of an adapter offers exactly what its adapter offers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import asdict

from killswitch.accounts.poll.shared_adapter import share_adapter
from killswitch.accounts.redaction import HIDDEN, RedactedAdapter, Redactor
from killswitch.model.venue import (
    OPTIONAL_ATTRIBUTES,
    Batching,
    DeadManRule,
    RuleKeeping,
    VenueAdapter,
    VenueDownError,
    VenueTimer,
    VenueTraits,
)
from tests.runner_world import ScriptedVenue

SECRET = "S3CRET+KEY"
TRAITS = VenueTraits(fees_by_fills=True)
LOCAL = {"used", "remember", "kept_rules"}
"""Calls that answer at once, without a request."""
Wrap = Callable[[VenueAdapter], VenueAdapter]
WRAPPERS: dict[str, Wrap] = {
    "of the ticks": lambda adapter: share_adapter(adapter)[0],
    "of the executor": lambda adapter: share_adapter(adapter)[1],
    "redacting": lambda adapter: RedactedAdapter(adapter, Redactor([SECRET])),
    "of all": lambda adapter: share_adapter(RedactedAdapter(adapter, Redactor([SECRET])))[1],
}


class Offering(ScriptedVenue):
    """Offers one capability; each of its calls is recorded, and fails with the credential in its message."""

    def __init__(self, name: str) -> None:
        super().__init__(None)
        self.traits = TRAITS
        self.calls: list[tuple[object, ...]] = []
        objects = {
            "batches": Batching(7, self._fail),
            "dead_man": VenueTimer(DeadManRule("account", 1.0), self._fail, self._fail),
            "kept_rules": RuleKeeping(self._answer, self._answer),
        }
        setattr(self, name, objects.get(name, self._answer if name in LOCAL else self._fail))

    async def _fail(self, *arguments: object) -> Any:
        self.calls.append(arguments)
        raise VenueDownError(f"401 for {SECRET}")

    def _answer(self, *arguments: object) -> Any:
        self.calls.append(arguments)
        return len(self.calls)


def calls_of(offered: Any) -> list[Callable[..., Any]]:
    """The calls of a capability."""
    parts = asdict(offered).values() if isinstance(offered, Struct) else (offered,)
    return [part for part in parts if callable(part)]


def data_of(offered: Any) -> list[Any]:
    """What is no call in a capability."""
    parts = asdict(offered).values() if isinstance(offered, Struct) else ()
    return [part for part in parts if not callable(part)]


@pytest.mark.parametrize("name", OPTIONAL_ATTRIBUTES)
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_a_wrapper_neither_loses_nor_invents_a_capability(
    wrap: Callable[[VenueAdapter], VenueAdapter], name: str
) -> None:
    """Of all that an adapter may offer the wrapper has this one alone, with its data."""
    adapter = Offering(name)
    view = wrap(adapter)
    assert [each for each in OPTIONAL_ATTRIBUTES if getattr(view, each) is not None] == [name]
    assert data_of(getattr(view, name)) == data_of(getattr(adapter, name))
    assert (view.account, view.traits) == (adapter.account, TRAITS)


@pytest.mark.parametrize("name", OPTIONAL_ATTRIBUTES)
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_a_wrapper_passes_on_every_call_of_a_capability(
    wrap: Callable[[VenueAdapter], VenueAdapter], name: str
) -> None:
    """Once, with its arguments; a local call answers at once, and the error of a request is raised."""
    adapter = Offering(name)
    for number, call in enumerate(calls_of(getattr(wrap(adapter), name)), 1):
        given = () if name in ("close_book", "inspect", "key_rights") else (f"{name} {number}",)
        answer = call(*given)
        if name in LOCAL:
            assert answer == number
        else:
            assert inspect.isawaitable(answer)
            with pytest.raises(VenueDownError):
                asyncio.run(_awaited(answer))
        assert len(adapter.calls) == number
        assert name == "listen" or adapter.calls[-1] == given


@pytest.mark.parametrize("name", [each for each in OPTIONAL_ATTRIBUTES if each not in LOCAL])
def test_no_error_of_a_capability_contains_a_credential(name: str) -> None:
    """Of a capability that is added tomorrow, too."""
    view = RedactedAdapter(Offering(name), Redactor([SECRET]))
    for call in calls_of(getattr(view, name)):
        given = () if name in ("close_book", "inspect", "key_rights") else (name,)
        with pytest.raises(VenueDownError, match="hidden credential") as raised:
            asyncio.run(_awaited(call(*given)))
        assert str(raised.value) == f"401 for {HIDDEN}"


async def _awaited(answer: Any) -> Any:
    return await answer
