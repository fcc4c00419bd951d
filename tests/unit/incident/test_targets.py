"""Log and file as targets: whole lines, file modes, errors; and Apprise's messages without secrets."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import stat
import tracemalloc
from pathlib import Path

import pytest
from apprise import Apprise
from msgspec.structs import replace

from killswitch.incident.notify import apprise_target
from killswitch.incident.notify.apprise_target import AppriseSender
from killswitch.incident.notify.message import decode_message, fit_message
from killswitch.incident.notify.targets import LOGGER, FileSender, LogSender, NotSentError, StalledError, log_entry
from killswitch.runner.notify.target_check import url_redaction
from killswitch.transport import sinks
from tests.outboxes import message
from tests.webhooks import Webhook, free_port

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


def test_a_file_gets_one_line_for_each_message_and_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """JSON Lines in the public format; the file is created with mode 0600, also under a lax umask."""
    path = tmp_path / "n.jsonl"
    before = os.umask(0)
    try:
        sender = FileSender(str(path))
        sender.send(message("m1"))
        sender.send(message("m2"))
    finally:
        os.umask(before)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["id"], line["title"]) for line in lines] == [("m1", "[page] m1"), ("m2", "[page] m2")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_torn_by_a_crash_is_ended_before_the_next_one(tmp_path: Path) -> None:
    """A line without its end stays a separate line; ours is whole."""
    path = tmp_path / "n.jsonl"
    path.write_text('{"id": "tor', encoding="utf-8")
    FileSender(str(path)).send(message("m1"))
    torn, whole = path.read_text(encoding="utf-8").splitlines()
    assert (torn, json.loads(whole)["id"]) == ('{"id": "tor', "m1")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda folder: folder / "none" / "n.jsonl", "No such file or directory"),
        (lambda folder: folder, "Is a directory"),
        (lambda folder: Path("/dev/full"), "is not a regular file"),
    ],
    ids=["no folder", "a folder", "a device"],
)
def test_a_path_that_cannot_be_written_is_an_error_that_is_retried(make: object, why: str, tmp_path: Path) -> None:
    """It raises NotSentError, so the message is sent again."""
    assert callable(make)
    with pytest.raises(NotSentError, match=why):
        FileSender(str(make(tmp_path))).send(message("m1"))


def test_an_unread_pipe_does_not_block_the_thread(tmp_path: Path) -> None:
    """A pipe is refused, because it stores nothing."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotSentError, match="not a regular file"):
        FileSender(str(tmp_path / "pipe")).send(message("m1"))


def test_a_file_on_a_full_disk_keeps_whole_lines_only(tmp_path: Path) -> None:
    """The part of a line that was written before the disk was full is removed."""
    path = tmp_path / "n.jsonl"
    sender = FileSender(str(path))
    sender.send(message("m1"))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
    try:
        with pytest.raises(NotSentError, match="File too large"):
            sender.send(message("m2"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    sender.send(message("m2"))
    assert len(path.read_bytes().splitlines()) == 2


def test_the_log_gets_one_record_at_its_level(caplog: pytest.LogCaptureFixture) -> None:
    """A configured log takes time and title, below them the text line by line as written, and the id, in one record."""
    with caplog.at_level(logging.INFO):
        LogSender("error").send(message("m1", body="loss  1.5%\n\nWhy\n  a fall"))
    (found,) = caplog.records
    assert (found.name, found.levelname) == (LOGGER, "ERROR")
    assert found.getMessage() == "2021-05-19T12:00:00Z  [page] m1\n  loss  1.5%\n\n  Why\n    a fall\n  notification m1"


def test_a_long_line_of_a_log_entry_continues_below_its_text_and_a_command_stays_whole() -> None:
    """What a terminal of 80 columns would break somewhere is broken at a word, next to its label."""
    long, command = f"left   {'net ' * 20}end", f"next   ksctl status --store {'x' * 80}"
    lines = log_entry(message("m1", body=f"{long}\n{command}")).split("\n")[1:-1]
    assert lines == [f"  left   {'net ' * 17}net", "         net net end", f"  {command}"]


def test_without_a_configured_log_the_message_is_written_to_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run under a supervisor shows it without configuration."""
    monkeypatch.setattr(logging.getLogger(LOGGER), "propagate", False)
    LogSender("info").send(message("m1"))
    assert capsys.readouterr().err == "2021-05-19T12:00:00Z  [page] m1\n  body of m1\n  notification m1\n"


TOKEN = "T0KENsup3rsecret"


@pytest.mark.parametrize(
    "url",
    [
        f"json://user:{TOKEN}@127.0.0.1:{{port}}/",
        f"json://127.0.0.1:{{port}}/{TOKEN}/",
        f"json://127.0.0.1:{{port}}/?-key={TOKEN}",
        f"slack://{TOKEN}/",
        f"nothing://{TOKEN}",
        TOKEN,
    ],
    ids=["password", "path", "query", "incomplete", "unknown", "no URL"],
)
def test_a_secret_never_appears_in_a_reason_or_on_a_stream(
    url: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Apprise's own messages may contain the URL or parts of it: they are hidden, and reach no log."""
    with pytest.raises(NotSentError) as refused:
        AppriseSender("env:URL", lambda: url.format(port=free_port()), url_redaction).send(message("m1"))
    assert TOKEN not in f"{refused.value!r} {refused.value.__cause__!r}"
    assert TOKEN not in caplog.text
    out, err = capfd.readouterr()
    assert TOKEN not in out + err


def test_the_host_of_a_webhook_is_named_and_its_token_is_not() -> None:
    """Which machine does not answer is what one looks for; of a service, the same place of the URL is a token."""
    reason = "desk.example:8080 refused the connection"
    for url in (f"json://desk.example:8080/{TOKEN}", f"json://user:{TOKEN}@desk.example:8080/"):
        assert url_redaction(url)(f"{reason}: {TOKEN} of user").startswith(f"{reason}: [hidden credential] of ")
    assert TOKEN not in url_redaction(f"slack://{TOKEN}/b/c")(f"{TOKEN} refused the connection")


def test_a_corrected_secret_is_used_at_the_next_attempt() -> None:
    """A reference is resolved for every message, so a run needs no restart."""
    answers = iter(["nothing://here", f"json://127.0.0.1:{free_port()}/"])
    sender = AppriseSender("env:URL", lambda: next(answers), lambda _: str)
    with pytest.raises(NotSentError, match="env:URL does not refer to one URL that Apprise understands"):
        sender.send(message("m1"))
    with pytest.raises(NotSentError, match="refused the connection"):
        sender.send(message("m1"))


@pytest.mark.parametrize("more", ["", "?redirect=yes"])
def test_a_redirect_of_a_service_is_not_followed(more: str) -> None:
    """The message names accounts and amounts, and its URL may hold a secret; even if the URL enables redirects."""
    named, other = Webhook(free_port()), Webhook(free_port())
    named.redirect = f"http://127.0.0.1:{other.port}/"
    with named.listening(), other.listening(), pytest.raises(NotSentError):
        AppriseSender("env:URL", lambda: f"json://127.0.0.1:{named.port}/{more}", lambda _: str).send(message("m1"))
    assert (named.bodies, other.bodies) == ([], [])


def apprise(webhook: Webhook) -> AppriseSender:
    return AppriseSender("env:URL", lambda: f"json://127.0.0.1:{webhook.port}/", lambda _: str)


def test_a_service_with_too_long_an_answer_has_accepted_the_message() -> None:
    """Its status code decides. The rest of the answer takes no memory, because this is the process that ticks."""
    webhook = Webhook(free_port())
    webhook.endless = True
    apprise(webhook).check()  # imports take memory too
    tracemalloc.start()
    try:
        with webhook.listening():
            assert apprise(webhook).send(message("m1")) is None
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20, "the webhook's own pieces are 1 MB"
    finally:
        tracemalloc.stop()
    assert webhook.ids == ["m1"]


def test_a_service_with_a_dripping_answer_has_accepted_the_message_and_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each byte restarts the read timeout, so the attempt has its own deadline."""
    monkeypatch.setattr(sinks, "BODY_WITHIN", 0.2)
    webhook = Webhook(free_port())
    webhook.drips = "body"
    with webhook.listening():
        assert apprise(webhook).send(message("m1")) == "its answer did not end within 0.2 s"
        webhook.released.set()
    assert webhook.ids == ["m1"]


def test_a_service_with_a_dripping_status_line_has_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it accepted the message is unknown, and the target counts as stalled at once."""
    monkeypatch.setattr(apprise_target, "TIMEOUT", 0.3)
    webhook = Webhook(free_port())
    webhook.drips = "status"
    with webhook.listening(), pytest.raises(StalledError, match=r"^no complete answer within 0\.3 s from 127\."):
        apprise(webhook).send(message("m1"))


def test_the_error_of_an_unreachable_service_starts_with_the_innermost_cause() -> None:
    """The text of the wrapping library follows, where it may be cut off."""
    with pytest.raises(NotSentError, match=r"^127\.0\.0\.1:\d+ refused the connection") as refused:
        apprise(Webhook(free_port())).send(message("m1"))
    assert not isinstance(refused.value, StalledError)
    assert "HTTPConnectionPool" not in str(refused.value)


LONG = "\n".join(
    [
        "loss: 2.79% against >= 2%, true since 2026-11-22T20:53:32Z",
        *(f"sell 148508.123 DOGE_USDT:USDT-PERP{number} (long) on main, leaving 0.00000" for number in range(80)),
        "see: ksctl explain 0123456789",
    ]
)


@pytest.mark.parametrize(
    ("url", "most"),
    [
        ("pagerduty://A1BRTD4JD@TIiajkdnlazkcOXrIdevi7F/", 1024),
        ("pover://abcdefghijklmnopqrstuvwxyz1234@abcdefghijklmnopqrstuvwxyz1234", 1024),
        ("discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", 2000),
        ("tgram://123456789:abcdefg_hijklmnop/12315544/?format=html", 4096),
        ("mailto://user:password@example.com", 32768),
    ],
)
def test_no_message_is_longer_than_the_limit_of_its_service(
    url: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut at the end of a line, and names the omitted lines, the command that shows them, and its id."""
    posted: list[str] = []
    sender = AppriseSender("env:URL", lambda: url, lambda _: str)
    service = Apprise.instantiate(url)
    assert service.body_maxlen == most
    monkeypatch.setattr(type(service), "send", lambda _, body, **__: posted.append(body) or True)
    sender.send(replace(message("m1", body=LONG), decision="d0123"))
    (body,) = posted
    assert len(body) <= most
    assert body.rstrip().endswith("notification m1")
    left_out = re.search("… ([0-9]+) lines more: ksctl report d0123", body)
    assert (left_out is None) == (most > 10_000)
    if left_out is not None:
        shown = [line for line in LONG.splitlines() if line.replace(">", "&gt;") in body or line in body]
        assert len(shown) + int(left_out[1]) == len(LONG.splitlines())
        assert len(body) > most / 2, "no shorter than it has to be"


@pytest.mark.parametrize("most", [0, 1, 20, 45, 60])
def test_a_very_short_message_is_the_command_that_shows_the_rest(most: int) -> None:
    """If no line fits, the command is sent, as far as it fits."""
    text = fit_message(replace(message("m1", body="x" * 100), decision="d1"), most)
    assert len(text) <= max(1, most)
    assert text.startswith("ksctl report d1"[: max(0, most - 1)])


def test_each_line_of_a_file_names_its_format(tmp_path: Path) -> None:
    """As documented; a line that an older version stored without a format is still read."""
    FileSender(str(tmp_path / "n")).send(message("m1"))
    line = json.loads((tmp_path / "n").read_text(encoding="utf-8"))
    assert line["format"] == "killswitch.notification/v1"
    del line["format"]
    assert decode_message(json.dumps(line).encode()) == message("m1")
