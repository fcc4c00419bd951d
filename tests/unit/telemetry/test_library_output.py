"""What libraries log and warn about on a terminal: readable, and without a signature or a key."""

from __future__ import annotations

import subprocess
import sys

import pytest

from killswitch.telemetry.library_output import HIDDEN, without_credentials, without_paths

BEGIN = """
import logging, warnings
from killswitch.cli.terminal import hide_in_log, start_log
start_log()
hide_in_log(lambda text: text.replace("planted-key", "***"))
"""


def stderr_of(program: str) -> list[str]:
    """The lines that the program prints on stderr; its stdout is empty."""
    done = subprocess.run([sys.executable, "-c", BEGIN + program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_record_of_a_library_has_no_path_no_query_and_no_key() -> None:
    """urllib3's words for a header that is none, and for a request that is tried again."""
    found = stderr_of(
        "log = logging.getLogger('urllib3.connectionpool')\n"
        "log.warning('Failed to parse headers (url=https://api.bybit.com/v5/order?api_key=planted-key&sign=ab12)')\n"
        "log.warning('Retrying (%r) after connection broken by %r: %s', 'Retry(total=1)', OSError('x'),"
        " '/api/v3/order?symbol=BTCUSDT&signature=c0ffee')\n"
        "log.info('planted-key')\n"
        "logging.getLogger('x').error('with planted-key and Bearer abc.def')\n"
    )
    assert found == [
        f"urllib3.connectionpool: Failed to parse headers (url=https://api.bybit.com/{HIDDEN})",
        "urllib3.connectionpool: Retrying ('Retry(total=1)') after connection broken by OSError('x'): "
        f"/api/v3/order?{HIDDEN}",
        f"x: with *** and Bearer {HIDDEN}",
    ]


def test_a_warning_is_one_line_without_the_address_of_the_request() -> None:
    """Python prints the source line too, which may hold what a caller wrote there."""
    (line,) = stderr_of("warnings.warn('unverified request to https://h.example/private/planted-key?sig=1')\n")
    assert line.startswith(f"UserWarning: unverified request to https://h.example/{HIDDEN} (")
    assert "planted-key" not in line


def test_the_traceback_of_a_record_is_redacted_line_by_line() -> None:
    """asyncio logs the errors of tasks that nobody awaits, with what the request was."""
    found = stderr_of(
        "try:\n    raise OSError('https://api.okx.com/api/v5/trade?OK-ACCESS-SIGN=abc')\n"
        "except OSError:\n    logging.getLogger('asyncio').exception('Task exception was never retrieved')\n"
    )
    assert found[0] == "asyncio: Task exception was never retrieved"
    assert found[-1] == f"OSError: https://api.okx.com/{HIDDEN}"


def test_a_record_that_cannot_be_formatted_raises_nothing() -> None:
    """Its arguments are the library's mistake, and its text may hold anything."""
    assert stderr_of("logging.getLogger('ccxt').warning('%d planted-key', 'no number')\n") == [
        "ccxt: a log record that cannot be printed: TypeError"
    ]


@pytest.mark.parametrize("text", ["wss://stream.binance.com", "see https://docs.example", "a?b", "really? yes = no"])
def test_what_is_no_path_and_no_query_stays(text: str) -> None:
    assert without_credentials(without_paths(text)) == text


@pytest.mark.parametrize("broken", ["OSError(28, 'No space left on device')", "ValueError('closed file')"])
def test_a_stderr_that_takes_nothing_raises_in_no_caller(broken: str) -> None:
    """A full disk or a reader that has gone: a poll in which a library warns must not end for that."""
    done = subprocess.run(
        [
            sys.executable, "-c", BEGIN
            + "import sys\n"
            "class Full:\n"
            f"    def write(self, text): raise {broken}\n"
            "    def flush(self): pass\n"
            "sys.stderr = Full()\n"
            "logging.getLogger('urllib3').warning('lost')\n"
            "warnings.warn('lost')\n"
            "print('goes on')\n",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "goes on\n"


@pytest.mark.parametrize(
    "name", ["https", "HTTP", "postgresql+psycopg", "a-name-that-is-too-long-for-a-scheme-and-goes-on-https"]
)
def test_an_address_has_no_path_whatever_its_scheme(name: str) -> None:
    """Also where other text is in front of it without a space."""
    assert without_paths(f"get {name}://h.example/secret") == f"get {name}://h.example/{HIDDEN}"
