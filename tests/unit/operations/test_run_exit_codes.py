"""Exit codes of `ksctl run`: 69 for everything before the end of the first tick, 1 for errors after it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from killswitch import cli
from killswitch.cli.live.start_checks import NotStartedError, StartFailures
from killswitch.runner.loop import Runner
from killswitch.runner.observers import TickReport
from killswitch.store.errors import StoreError
from tests.unit.operations.test_live_verbs import ACCOUNT, WATCH

KILLED = StoreError("the disk is full")


def fail(error: BaseException, ticks: int | None) -> None:
    """A run that raises `error` after this many ticks; None: before there is a runner."""
    with StartFailures() as start:
        start.runner = None if ticks is None else SimpleNamespace(ticks=ticks)  # type: ignore[assignment]  # what it reads
        raise error


@pytest.mark.parametrize("ticks", [None, 0])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (click.ClickException("1 problem"), "1 problem"),
        (KILLED, "the disk is full"),
        (TypeError("no such thing"), "the run could not start: unexpected TypeError: no such thing"),
    ],
    ids=["refused", "store", "defect"],
)
def test_an_error_before_the_first_tick_is_complete_is_a_failed_start(
    error: Exception, text: str, ticks: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the error's own text; only a defect has a traceback."""
    with pytest.raises(NotStartedError) as raised:
        fail(error, ticks)
    assert (raised.value.exit_code, raised.value.message) == (69, text)
    assert ("Traceback" in capsys.readouterr().err) == isinstance(error, TypeError)


@pytest.mark.parametrize(
    "error", [click.UsageError("no such option"), click.Abort(), KeyboardInterrupt(), click.exceptions.Exit(3)]
)
def test_wrong_usage_and_interruption_keep_their_codes(error: BaseException) -> None:
    """64 and 130, as for every verb."""
    with pytest.raises(type(error)):
        fail(error, None)


def test_an_error_after_the_first_tick_is_no_failed_start() -> None:
    """It keeps its type, for exit code 1."""
    with pytest.raises(StoreError, match="the disk is full"):
        fail(KILLED, 1)


@pytest.mark.parametrize(("ticks_before", "code"), [(0, 69), (1, 1), (2, 0)])
def test_the_process_has_the_code_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticks_before: int, code: int
) -> None:
    """Two ticks on an account that is down; the pass after `ticks_before` fails with an error of the store."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "watch.yaml").write_text(WATCH, encoding="utf-8")
    account = ACCOUNT % ", endpoint: 'http://127.0.0.1:9'"
    (tmp_path / "p" / "account.yaml").write_text(account, encoding="utf-8")
    whole_tick = Runner.tick

    async def failing(self: Runner) -> TickReport:
        if self.ticks == ticks_before:
            await asyncio.sleep(0)
            raise KILLED
        return await whole_tick(self)

    monkeypatch.setattr(Runner, "tick", failing)
    place = ["--policies", str(tmp_path / "p"), "--store", str(tmp_path / "s")]
    monkeypatch.setattr("sys.argv", ["ksctl", "run", *place, "--interval", "50ms", "--ticks", "2"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
