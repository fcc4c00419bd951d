"""The log of a process: one line for each event whatever is written, what it is about, and no secret."""

from __future__ import annotations

import io
import json
import logging
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.accounts.redaction import Redactor
from killswitch.telemetry.library_output import HIDDEN
from killswitch.telemetry.process_log import ProcessLog

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"
KEY = "planted-key-5d1e-Zk9"
TOKEN = "kst_" + "aB3-_" * 8 + "xyz"


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """The events of a stream; each line is one JSON object, or this fails."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_says_when_how_bad_and_what_it_is_about() -> None:
    """What is not known is left out."""
    stream = io.StringIO()
    ProcessLog(stream).write(
        "stop fired", "warning", incident="ab" * 10, policy="stop", scope="account/main", stage=None
    )
    (event,) = lines(stream)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "level": "warning", "event": "stop fired", "incident": "ab" * 10, "policy": "stop", "scope": "account/main",
    }  # fmt: skip


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
    max_leaves=8,
)


@given(st.text(), st.dictionaries(st.sampled_from(["policy", "scope", "why", "book"]), anything))
def test_whatever_is_written_is_one_line_of_printable_json(text: str, about: dict[str, Any]) -> None:
    """Line breaks of every kind, escape sequences, lone surrogates, marks of direction: nothing reaches a terminal."""
    stream = io.StringIO()
    ProcessLog(stream).write(text, **about)
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert written[:-1].isprintable()
    assert written.isascii()
    json.loads(written)


HOSTILE = [
    f"HTTP 401 for key={KEY}", f"a\n{KEY}\nb", f"\x1b[31m{KEY}", KEY.encode().hex(), f"https://ann:{KEY}@venue.example/x",
    f"{{\"apiKey\": \"{KEY}\"}}", f"Bearer {TOKEN}", f"token={TOKEN}", f"ends with the beginning {KEY[:9]}",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXkt\n-----END OPENSSH PRIVATE KEY-----",
    "Authorization: Basic YW5uOnNlY3JldA==", "redis://user:pa55word@cache/0", "redis://user:a@pa55word@cache/0",
    "AUTHORIZATION: BEARER  YW5uOnNlY3JldA==", f"header {JWT}",
]  # fmt: skip
SECRETS = (KEY, KEY.encode().hex(), TOKEN, KEY[:9], "b3BlbnNzaC1rZXkt", "YW5uOnNlY3JldA==", "pa55word", JWT)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", ["event", "field", "nested", "key", "error", "library", "object"])
def test_no_secret_reaches_a_line_wherever_it_is(text: str, place: str) -> None:
    """Credentials of accounts, tokens of ours, headers, passwords in addresses and private keys."""
    stream = io.StringIO()
    log = ProcessLog(stream)
    log.hide(Redactor([KEY]).hide)
    if place == "event":
        log.write(text)
    elif place == "field":
        log.write("x", why=text)
    elif place == "nested":
        log.write("x", book={"a": [text, {"b": text}]})
    elif place == "key":
        log.write("x", book={text: 1})
    elif place == "object":
        log.write("x", why=ValueError(text))
    elif place == "error":
        log.failed(RuntimeError, RuntimeError(text), None)
    else:
        logger = logging.Logger("venue.client")
        logger.addHandler(log.handler())
        logger.warning("%s %s", "refused", text)
    (event,) = lines(stream)
    written = json.dumps(event, ensure_ascii=False)
    assert [each for each in SECRETS if each in text and each in written] == []
    assert HIDDEN in written


def test_a_private_key_that_is_printed_line_by_line_is_hidden_and_nothing_after_it() -> None:
    """As a traceback of a library prints one; a key without an end hides nothing but lines of its form."""
    code = (
        "key = ['-----BEGIN PRIVATE KEY-----', 'MIIBVgIBADANBg', '', 'kqhkiG9w0BAQE=', '-----END PRIVATE KEY-----']\n"
        "for line in [*key, 'after it', key[0], key[1], 'orders are late: 3']: print(line, file=sys.stderr)\n"
    )
    _, found = taken_over(code)
    hidden = "[hidden credential]"
    assert [each["event"] for each in found] == [hidden, "after it", hidden, "orders are late: 3"]


@pytest.mark.parametrize("where", ["https://hooks.example/T0/planted?sign=0f", "json://hooks.example/planted/"])
def test_what_a_library_logs_of_an_address_is_its_host(where: str) -> None:
    """urllib3 logs the whole address of a service that answers with a broken header; our own text stays as it is."""
    stream = io.StringIO()
    log = ProcessLog(stream)
    for name in ("urllib3.connection", "killswitch.notifications"):
        logger = logging.Logger(name)
        logger.addHandler(log.handler())
        logger.warning("Failed to parse headers (url=%s): %s", where, [])
    library, own = (each["event"] for each in lines(stream))
    scheme = where.partition(":")[0]
    assert library == f"Failed to parse headers (url={scheme}://hooks.example/[hidden credential]): []"
    assert where in own


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_has_not_is_written_as_its_text(number: float) -> None:
    """An event never fails whoever writes it."""
    stream = io.StringIO()
    ProcessLog(stream).write("x", value=number, book={"a": [number]})
    (event,) = lines(stream)
    assert (event["value"], event["book"]) == (str(number), {"a": [str(number)]})


def test_ordinary_words_are_not_hidden() -> None:
    """Ids, addresses without a password, and what is spelled like a part of a credential."""
    stream = io.StringIO()
    log = ProcessLog(stream)
    text = "kst is a prefix; http://127.0.0.1:8600/v1 refused; basic test; decision abababababababab of account/main"
    log.write(text)
    assert lines(stream)[0]["event"] == text


def taken_over(code: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code of a process whose log has taken over, and its events."""
    begin = "import sys\nfrom killswitch.telemetry.process_log import ProcessLog\nProcessLog(sys.stderr).take_over()\n"
    done = subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, check=False)
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize(
    ("code", "level", "event"),
    [
        ("print('half a ', 'line', file=sys.stderr)", "warning", "half a  line"),
        ("sys.stderr.write('no line end')", "warning", "no line end"),
        ("import warnings; warnings.warn('old call')", "warning", "UserWarning: old call"),
        ("import logging; logging.getLogger('lib').error('a\\nb')", "error", "a\nb"),
        ("import logging; logging.getLogger('killswitch.notifications').info('sent')", "info", "sent"),
    ],
)
def test_what_is_printed_past_the_log_is_an_event_too(code: str, level: str, event: str) -> None:
    """Also what a library logs in several lines."""
    status, found = taken_over(code)
    assert status == 0
    assert [each["level"] for each in found][:1] == [level]
    assert event in found[0]["event"]


def test_an_error_that_ends_the_process_is_one_line_with_its_traceback() -> None:
    status, found = taken_over("def f():\n    raise ValueError('bad book')\nf()\n")
    assert status == 1
    (event,) = found
    assert (event["level"], event["event"]) == ("critical", "ValueError: bad book")
    assert "in f" in event["exception"]


def test_a_verb_without_a_log_does_not_import_it() -> None:
    """The import takes a tenth of a second, which no start waits for."""
    code = "import sys\nfrom killswitch.cli import ksctl\nksctl.main(['run', '--help'], standalone_mode=False)\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print('structlog' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
