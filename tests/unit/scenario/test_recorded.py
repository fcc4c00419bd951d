"""A stretch of a recording becomes a scenario, which replays it with the engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.cli import ksctl
from killswitch.lab.recording import RecordingWriter, read
from killswitch.scenario.book import snapshots
from tests.unit.scenario.written import POLICY, loaded, scenario_text

# 09:00 in Berlin is 08:00 UTC.
BETWEEN = ("--between", "2026-03-02T08:01:00Z", "2026-03-02T08:06:00Z")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Falls of 1% a minute for eight minutes, recorded."""
    (tmp_path / "source").mkdir()
    _, (scenario,), _ = loaded(tmp_path / "source", scenario_text("10000 -1%x8"))
    with RecordingWriter(tmp_path / "run.jsonl.gz") as writer:
        for _, snapshot in snapshots(scenario):
            writer.write(snapshot)
    return tmp_path / "run.jsonl.gz"


def make(folder: Path, recording: Path, *args: str, name: str = "crash.yaml") -> Result:
    """`ksctl test --from-recording` in the folder `desk`, which has the policies."""
    desk = folder / "desk"
    desk.mkdir(exist_ok=True)
    (desk / "policy.yaml").write_text(POLICY, encoding="utf-8")
    arguments = ["test", str(desk), "--from-recording", str(recording), "--save-as", str(desk / name), *args]
    return CliRunner().invoke(ksctl, arguments)


def test_a_stretch_is_written_with_its_snapshots_and_what_it_shows_is_printed(tmp_path: Path, recording: Path) -> None:
    """From 1m to 6m: the loss counts from the first snapshot, 9,900, and is 3.94% 4m later."""
    result = make(tmp_path, recording, *BETWEEN)
    assert result.exit_code == 0, result.output
    assert "- {at: 4m, policy: falls, scope: 'account/main', fires: warn, lock: none, orders: []}" in result.stdout
    found = list(read(tmp_path / "desk" / "crash.jsonl.gz"))
    assert [each.as_of.minute for each in found] == [1, 2, 3, 4, 5, 6]


def test_the_scenario_fails_until_a_person_has_written_what_is_expected(tmp_path: Path, recording: Path) -> None:
    """No expectation is written by the program."""
    make(tmp_path, recording, *BETWEEN)
    desk = tmp_path / "desk"
    assert CliRunner().invoke(ksctl, ["test", str(desk)]).exit_code == 1
    written = (desk / "crash.yaml").read_text(encoding="utf-8")
    expected = "expect: [{at: 4m, fires: warn, scope: account/main}]"
    (desk / "crash.yaml").write_text(written.replace("expect: []", expected), encoding="utf-8")
    result = CliRunner().invoke(ksctl, ["test", str(desk)])
    assert result.exit_code == 0, result.output


def test_the_first_snapshot_has_the_rules_of_symbols_from_before(tmp_path: Path, recording: Path) -> None:
    """They are in the recording's first snapshot only."""
    make(tmp_path, recording, *BETWEEN)
    first, second, *_ = read(tmp_path / "desk" / "crash.jsonl.gz")
    assert [each.symbol for each in first.accounts[0].instruments or ()] == ["BTC/USDT:USDT"]
    assert not second.accounts[0].instruments


def test_an_expectation_of_a_time_without_a_snapshot_fails(tmp_path: Path, recording: Path) -> None:
    """It is never answered by the nearest snapshot."""
    make(tmp_path, recording, *BETWEEN)
    file = tmp_path / "desk" / "crash.yaml"
    expected = "expect: [{at: 4m, fires: warn, scope: account/main}, {at: 90s, in_force: none, scope: account/main}]"
    file.write_text(file.read_text(encoding="utf-8").replace("expect: []", expected), encoding="utf-8")
    result = CliRunner().invoke(ksctl, ["test", str(tmp_path / "desk")])
    assert result.exit_code == 1
    assert "the recording has no snapshot at this time" in result.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "--from-recording needs --between A B and --save-as FILE"),
        (("--between", "2026-03-02", "2026-03-03T00:00:00Z"), "not a time with its zone"),
        (("--between", "2026-03-03T00:00:00Z", "2026-03-02T00:00:00Z"), "the end is before the begin"),
        (("--between", "2027-03-03T00:00:00Z", "2027-03-04T00:00:00Z"), "has no snapshot between"),
    ],
)
def test_wrong_times_are_refused(tmp_path: Path, recording: Path, args: tuple[str, ...], message: str) -> None:
    """With what to write, and without a file."""
    result = make(tmp_path, recording, *args)
    assert result.exit_code != 0
    assert message in result.output
    assert not (tmp_path / "desk" / "crash.yaml").exists()


def test_an_existing_file_is_never_replaced(tmp_path: Path, recording: Path) -> None:
    """Neither the scenario nor its snapshots."""
    make(tmp_path, recording, *BETWEEN)
    again = make(tmp_path, recording, *BETWEEN)
    assert again.exit_code == 1
    assert "already exists" in again.output


def test_a_store_is_no_recording(tmp_path: Path) -> None:
    """It keeps no snapshots of ticks; the message says what does."""
    store = tmp_path / "store.sqlite"
    store.write_bytes(b"SQLite format 3\0" + b"\0" * 100)
    result = make(tmp_path, store, *BETWEEN)
    assert result.exit_code == 1
    assert "is a store" in result.output
    assert "`ksctl run --record FILE` writes one" in result.output
    assert not (tmp_path / "desk" / "crash.yaml").exists()


def test_a_damaged_recording_is_an_error_of_its_scenario(tmp_path: Path, recording: Path) -> None:
    """With file and line, and no traceback."""
    make(tmp_path, recording, *BETWEEN)
    (tmp_path / "desk" / "crash.jsonl.gz").write_bytes(b"nonsense")
    result = CliRunner().invoke(ksctl, ["test", str(tmp_path / "desk")])
    assert result.exit_code == 1
    assert "ERROR crash" in result.stdout
    assert "crash.jsonl.gz" in result.stdout
