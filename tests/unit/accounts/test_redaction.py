"""W3: no adapter error reveals a credential, wherever it is raised."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from killswitch.accounts import plug_ins
from killswitch.accounts.plug_ins import AdapterError, make_adapter
from killswitch.accounts.redaction import HIDDEN, Redactor
from killswitch.model.inspection import Capability, Inspection, KeyRights
from killswitch.model.legible import shortened
from killswitch.model.venue import (
    OPTIONAL_ATTRIBUTES,
    AccountSpec,
    Batching,
    OrderRejectedError,
    RateLimitedError,
    VenueDownError,
    VenueError,
    VenueTraits,
)
from tests.runner_world import ScriptedVenue

SECRET = "s3cr&t/'1'"
SPEC = AccountSpec("main", "leaky", "swap", "USDT", None, {}, {"key": SECRET})


class WordyError(VenueError):
    """Builds its text from something other than its arguments."""

    def __str__(self) -> str:
        return f"401 for {SECRET}"


class Leaky(ScriptedVenue):
    """Every request raises `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(None)
        self.error = error

    async def _fail(self, *_: object) -> Any:
        raise self.error

    snapshot = submit = find_order = open_orders = fills = cancel = _fail


@pytest.mark.parametrize(
    "error",
    [
        VenueDownError(f"401 for {SECRET}"),
        RateLimitedError(f"429 for {SECRET}", 3.0),
        OrderRejectedError("permission", f"no rights: {SECRET}"),
        RuntimeError(f"GET /?key={SECRET}"),
        RuntimeError("GET /?key=s3cr%26t%2F%271%27"),
        KeyError(SECRET),
        WordyError(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    ("call", "arguments"),
    [("snapshot", 0), ("submit", 1), ("find_order", 2), ("open_orders", 0), ("fills", 2), ("cancel", 2)],
)
def test_w3_no_error_of_an_adapter_contains_a_credential(
    error: Exception, call: str, arguments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the request and the error: its text passes through, the credential in it does not."""
    monkeypatch.setattr(plug_ins, "factory_of", lambda name: lambda spec: Leaky(error))
    venue = make_adapter(SPEC)
    with pytest.raises(Exception, match="hidden credential") as raised:
        asyncio.run(getattr(venue, call)(*[""] * arguments))
    assert "s3cr" not in str(raised.value) + repr(raised.value.__cause__)
    assert isinstance(raised.value, VenueError) == isinstance(error, VenueError)
    if isinstance(error, OrderRejectedError | RateLimitedError):
        assert raised.value is error, "reason and time to wait are kept"


def test_w3_an_adapter_that_refuses_its_account_does_not_reveal_its_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names the account and the cause, and neither it nor its chain contains the credential."""

    def refuse(spec: AccountSpec) -> object:
        raise ValueError(f"key {spec.credentials['key']} is malformed")

    monkeypatch.setattr(plug_ins, "factory_of", lambda name: refuse)
    with pytest.raises(AdapterError) as refused:
        make_adapter(SPEC)
    assert str(refused.value) == f"account main: adapter leaky refused the account: key {HIDDEN} is malformed"
    assert refused.value.__cause__ is None


def test_of_two_credentials_the_one_that_contains_the_other_is_hidden_whole() -> None:
    """No piece of the longer one is left over."""
    assert Redactor(["abc", "abcdef", ""]).hide("abcdef abc") == f"{HIDDEN} {HIDDEN}"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("demo.venue.test refused the connection", "demo.venue.test refused the connection"),
        ("GET http://demo.venue.test:8701/demo", f"GET http://demo.venue.test:8701/{HIDDEN}"),
        ("cannot reach demo.venue.test", "cannot reach demo.venue.test"),
        ("the key demo is refused by xdemo.venue.test", f"the key {HIDDEN} is refused by x{HIDDEN}.venue.test"),
        ("login at demo.venue.test/T0KEN", f"login at {HIDDEN}"),
    ],
)
def test_a_credential_that_is_a_part_of_a_host_leaves_the_host_readable(text: str, hidden: str) -> None:
    """The host is written in the document of the account; a credential that contains it is hidden whole."""
    assert Redactor(["demo", "demo.venue.test/T0KEN"], ["demo.venue.test"]).hide(text) == hidden


def test_the_host_of_a_venue_is_named_although_a_credential_is_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of a demo is often a word of its address."""
    spec = AccountSpec("main", "leaky", "swap", "USDT", "http://demo.venue.test:1", {}, {"key": "demo"})
    error = VenueDownError("demo.venue.test refused the connection with key demo")
    monkeypatch.setattr(plug_ins, "factory_of", lambda _: lambda _: Leaky(error))
    with pytest.raises(VenueDownError) as raised:
        asyncio.run(make_adapter(spec).snapshot())
    assert str(raised.value) == f"demo.venue.test refused the connection with key {HIDDEN}"


def test_a_credential_that_is_not_utf8_is_hidden_too() -> None:
    """The environment passes such bytes as surrogates; quoting them must not raise."""
    redactor = Redactor(["k\udcffy"])
    assert redactor.hide("key k\udcffy in ?key=k%FFy") == f"key {HIDDEN} in ?key={HIDDEN}"


@pytest.mark.parametrize(
    "template",
    ["{}/?venue=7&token=T0KENsup3r cannot be reached", "401 for T0KENsup3r", "asked with venue=7&token=T0KENsup3r"],
)
def test_a_query_string_of_an_endpoint_is_hidden(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token in the query of an address is written in a document, and need not be in logs and stores too."""
    address = "http://127.0.0.1:1"
    spec = AccountSpec("main", "leaky", "swap", "USDT", f"{address}/?venue=7&token=T0KENsup3r", {}, {})
    monkeypatch.setattr(plug_ins, "factory_of", lambda _: lambda _: Leaky(VenueDownError(template.format(address))))
    with pytest.raises(VenueDownError) as raised:
        asyncio.run(make_adapter(spec).snapshot())
    assert "T0KEN" not in str(raised.value)
    assert HIDDEN in str(raised.value)


class LeakyBatches(ScriptedVenue):
    """Answers a batch with an order, and with a refusal that contains the credential."""

    def __init__(self) -> None:
        super().__init__(None)
        self.batches = Batching(5, self.submit_batch)

    async def submit_batch(self, requests: object) -> list[object]:
        refusal = RateLimitedError(f"429 for {SECRET}", 3.0)
        return ["an order", OrderRejectedError("permission", f"no rights: {SECRET}"), refusal, WordyError()]


def test_w3_no_answer_in_a_batch_contains_a_credential_and_each_keeps_its_meaning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The errors of single orders come as answers, not as exceptions: their text is redacted all the same."""
    monkeypatch.setattr(plug_ins, "factory_of", lambda name: lambda spec: LeakyBatches())
    venue = make_adapter(SPEC)
    assert venue.batches is not None
    order, rejected, limited, wordy = asyncio.run(venue.batches.submit(()))
    assert order == "an order"
    assert isinstance(rejected, OrderRejectedError)
    assert rejected.reason == "permission"
    assert isinstance(limited, RateLimitedError)
    assert limited.retry_after == 3.0
    assert isinstance(wordy, VenueError)
    assert not any("s3cr" in str(each) for each in (rejected, limited, wordy))


def test_the_redacting_adapter_offers_exactly_what_its_adapter_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter with credentials is asked for batches, whole-book closes and counts only where it has them."""

    class Gifted(LeakyBatches):
        def used(self) -> dict[str, int]:
            return {"weight": 3}

        async def close_book(self) -> None:
            raise VenueDownError(f"401 for {SECRET}")

    monkeypatch.setattr(plug_ins, "factory_of", lambda name: lambda spec: ScriptedVenue(None))
    plain = make_adapter(SPEC)
    assert not any(getattr(plain, name) for name in OPTIONAL_ATTRIBUTES)
    assert plain.traits == VenueTraits()
    monkeypatch.setattr(plug_ins, "factory_of", lambda name: lambda spec: Gifted())
    gifted = make_adapter(SPEC)
    assert gifted.batches is not None and gifted.batches.most == 5
    assert gifted.used is not None and gifted.used() == {"weight": 3}
    assert gifted.close_book is not None
    with pytest.raises(VenueDownError, match="hidden credential"):
        asyncio.run(gifted.close_book())


LONG = "S3CRET+abc/defghijklmnopqrstuvwxyz=0123456789"


@pytest.mark.parametrize("kept", [4, 5, len(LONG) // 2, len(LONG) - 1])
@pytest.mark.parametrize(
    "template",
    ["{}", "{}\n", "'{}'", "{}…", "{}..., it said", "{}…; are these keys for this address?", "['{}']", "{}…, {}…"],
)
def test_the_beginning_of_a_credential_is_hidden_where_a_text_was_truncated(template: str, kept: int) -> None:
    """A proxy's page that repeats the request may be cut in the middle of the key, by us or by the proxy."""
    hidden = Redactor([LONG, "S3CRET-and-another"]).hide("x" * 300 + " " + template.format(LONG[:kept], LONG[:kept]))
    assert LONG[:4] not in hidden
    assert hidden == "x" * 300 + " " + template.format(HIDDEN, HIDDEN)


def test_text_that_only_begins_like_a_credential_is_kept_within_a_text() -> None:
    """A pass phrase may begin with a word that occurs in every message."""
    assert Redactor(["order-of-the-day"]).hide("the order is late") == "the order is late"


def test_a_text_truncated_before_redaction_contains_no_part_of_a_credential() -> None:
    """Wherever the cut falls: at most three characters of the credential are left, which reveal nothing."""
    redactor = Redactor([LONG])
    for most in range(20, 90):
        hidden = redactor.hide(shortened("x" * 20 + LONG + "y" * 40, most))
        assert LONG[:4] not in hidden
        assert len(hidden) <= most + len(HIDDEN)


def _percent(secret: str) -> str:
    return secret.replace("+", "%2b").replace("/", "%2f").replace("=", "%3d")


@pytest.mark.parametrize(
    "written",
    [
        lambda secret: json.dumps(secret).replace("/", "\\/"),
        _percent,
        lambda secret: secret.encode().hex().upper(),
        lambda secret: b64encode(f"key:{secret}".encode()).decode(),
        lambda secret: b64encode(f"a-key:{secret}".encode()).decode()[:-20],
    ],
    ids=["JSON of PHP", "lower-case percent", "upper-case hex", "basic authorization", "of which the end is cut off"],
)
def test_a_credential_is_hidden_in_every_encoding_that_proxies_use(written: Callable[[str], str]) -> None:
    """What is left of it, in any encoding, is the edge of a base64 text: a character or two."""
    hidden = Redactor([LONG]).hide(f"refused: {written(LONG)}")
    assert HIDDEN in hidden
    assert not any(written(LONG)[at : at + 12] in hidden for at in range(12, len(written(LONG)) - 12))


def test_a_credential_in_an_html_page_is_hidden() -> None:
    """A proxy escapes what it repeats on its page."""
    assert (
        Redactor(["p&ss'w<rd"]).hide("<p>p&amp;ss&#39;w&lt;rd, p&amp;ss&#x27;w&lt;rd</p>")
        == f"<p>{HIDDEN}, {HIDDEN}</p>"
    )


class Righted(ScriptedVenue):
    """Reports the rights of its key."""

    async def key_rights(self) -> KeyRights:
        return KeyRights(read=True, trade=True, withdraw=True, note=f"the key {SECRET} may withdraw")

    async def inspect(self) -> Inspection:
        note = f"the key {SECRET}"
        return Inspection("ok", 0.0, await self.key_rights(), None, None, (Capability("trade", "yes", note),), (note,))


@pytest.mark.parametrize("passphrase", ["withdraw", "true", "trade"])
def test_a_credential_spelled_like_a_right_does_not_hide_the_right_to_withdraw(
    passphrase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plug_ins, "factory_of", lambda _: lambda _: Righted(None))
    spec = AccountSpec("main", "righted", "swap", "USDT", None, {}, {"key": SECRET, "passphrase": passphrase})
    adapter: Any = make_adapter(spec)
    rights = asyncio.run(adapter.key_rights())
    assert rights.withdraw is True
    assert SECRET not in rights.note
    inspection = asyncio.run(adapter.inspect())
    assert inspection.rights.withdraw is True
    assert [each.name for each in inspection.capabilities] == ["trade"]
    assert SECRET not in repr(inspection)
