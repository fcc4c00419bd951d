"""Notification targets that cannot work are known before the incident: to `validate`, `run --live` and `status`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.cli import ksctl
from killswitch.incident.notify.apprise_target import AppriseSender
from tests.webhooks import Webhook, free_port

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
ACCOUNT = """
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:1', execution: live}
"""


@pytest.fixture
def folder(tmp_path: Path, repository: Path) -> Path:
    """A shipped set, which notifies risk-desk, and an armed account."""
    found = tmp_path / "policies"
    found.mkdir()
    (found / "policy.yaml").write_text((repository / "policies/futures-drawdown/policy.yaml").read_text())
    (found / "account.yaml").write_text(ACCOUNT)
    return found


def routed(folder: Path, *targets: object) -> None:
    spec = {"match": {}, "targets": list(targets)}
    header = "apiVersion: killswitch.dev/v1\nkind: NotificationRoute\nmetadata: {name: desk}\n"
    (folder / "routes.yaml").write_text(f"{header}spec: {json.dumps(spec)}\n")


def called(*arguments: object) -> Result:
    return CliRunner().invoke(ksctl, [str(each) for each in arguments])


def run(folder: Path, *more: str) -> Result:
    store = folder.parent / "store.sqlite"
    return called("run", "--policies", folder, "--store", store, "--ticks", 1, "--read-timeout", "0.2s", *more)


def broken(folder: Path) -> Sequence[tuple[object, str]]:
    """Targets that cannot work, and the expected text about each."""
    (folder.parent / "garbage").write_text("not a url\n")
    os.mkfifo(folder.parent / "pipe")
    return (
        ({"apprise": {"url": "env:KS_TEST_UNSET"}}, "the environment variable KS_TEST_UNSET is not set"),
        ({"apprise": {"url": f"file:{folder.parent}/garbage"}}, "does not refer to one URL that Apprise understands"),
        ({"file": {"path": f"{folder.parent}/none/n.jsonl"}}, "cannot be created in its folder"),
        ({"file": {"path": f"{folder.parent}/pipe"}}, "pipe: "),
        ({"file": {"path": str(folder)}}, "Is a directory"),
    )


def test_validate_warns_of_every_target_that_cannot_work_from_here(folder: Path) -> None:
    """Each with its route's place and the reason; one that works is not named, and the check writes nothing."""
    targets = broken(folder)
    good = folder.parent / "messages.jsonl"
    routed(folder, *(target for target, _ in targets), {"file": {"path": str(good)}}, {"log": {"level": "warning"}})
    result = called("validate", folder)
    assert result.exit_code == 0
    assert result.output.count("warning KS5029") == len(targets)
    assert all(why in result.output for _, why in targets)
    assert str(good) not in result.output
    assert not good.exists()


def test_a_target_that_cannot_work_is_shown_where_it_is_declared(folder: Path) -> None:
    """On its own line and underlined whole; the reason names neither a path nor a variable twice."""
    header = "apiVersion: killswitch.dev/v1\nkind: NotificationRoute\nmetadata: {name: desk}\nspec:\n  match: {}\n"
    (folder / "routes.yaml").write_text(
        f"{header}  targets:\n    - log: {{level: info}}\n"
        "    - apprise: {url: 'env:KS_TEST_UNSET'}\n    - apprise: {url: file:/nowhere/url}\n"
    )
    result = called("validate", folder).output
    at = result.index("KS_TEST_UNSET")
    found = [line.partition("|")[2] or line for line in result[result.rfind("\n", 0, at) + 1 :].splitlines()]
    assert found[0].endswith(
        "routes.yaml:8:22: warning KS5029: this target accepts no message from this process: "
        "the environment variable KS_TEST_UNSET is not set; set it for this process"
    )
    written, underlined = found[1:3]
    begins = written.index("'env:")
    assert underlined == " " * begins + "^" * (written.rindex("'") + 1 - begins)
    (line,) = [line for line in result.splitlines() if "/nowhere/url (" in line]
    assert line.count("/nowhere/url") == 1


def test_a_live_run_does_not_start_where_somebody_cannot_be_notified(folder: Path) -> None:
    """A shipped set without a route, and one whose target cannot work; with --unnotified it starts, and says so."""
    refused = run(folder, "--live")
    assert refused.exit_code == 69
    assert "KS5020" in refused.output
    assert "--unnotified" in refused.output
    assert not (folder.parent / "store.sqlite").exists()
    assert run(folder).exit_code == 0, "observing needs nobody"
    routed(folder, {"apprise": {"url": "env:KS_TEST_UNSET"}})
    refused = run(folder, "--live")
    assert (refused.exit_code, "KS_TEST_UNSET is not set" in refused.output) == (69, True)


def test_status_lists_those_who_cannot_be_notified_under_problems(folder: Path) -> None:
    """Of a run that was started with --unnotified: names without a route, then a target that cannot work."""
    assert run(folder, "--live", "--unnotified").exit_code == 0
    store = folder.parent / "store.sqlite"
    assert "nobody is notified of what is addressed to risk-desk" in called("status", "--store", store).output
    routed(folder, {"apprise": {"url": "env:KS_TEST_UNSET"}})
    assert run(folder, "--live", "--unnotified").exit_code == 0
    assert "env:KS_TEST_UNSET will fail" in called("status", "--store", store).output


def test_a_test_message_reaches_every_target_and_reports_which_failed(folder: Path) -> None:
    """Exit 1 while one fails, 0 when all accept it; a webhook gets the real thing, and a file a line."""
    webhook = Webhook(free_port())
    file = folder.parent / "messages.jsonl"
    routed(folder, {"apprise": {"url": f"json://127.0.0.1:{webhook.port}/"}}, {"file": {"path": str(file)}})
    down = called("notify", "test", "--policies", folder)
    assert down.exit_code == 1
    assert f"apprise json://127.0.0.1:{webhook.port}/ (desk): FAILED: " in down.output
    assert f"file {file} (desk): delivered" in down.output
    with webhook.listening():
        taken = called("notify", "test", "--policies", folder, "--output", "json")
    assert taken.exit_code == 0
    assert [each["taken"] for each in json.loads(taken.stdout)["targets"]] == [True, True]
    assert len(webhook.ids) == 1
    assert [json.loads(line)["title"] for line in file.read_text().splitlines()] == [
        "[info] a test of the notification routes"
    ] * 2


def test_without_a_route_there_is_nothing_to_test(folder: Path) -> None:
    """That nobody would be notified is a failure."""
    result = called("notify", "test", "--policies", folder)
    assert (result.exit_code, "no NotificationRoute" in result.output) == (1, True)


def test_a_plug_in_that_exits_is_a_failed_target_and_ends_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that calls `sys.exit` neither passes for a delivery nor takes the command with it."""
    monkeypatch.setattr(AppriseSender, "send", lambda *_: sys.exit(3))
    routed(folder, {"apprise": {"url": "json://127.0.0.1:1/"}})
    result = called("notify", "test", "--policies", folder)
    assert (result.exit_code, "FAILED: unexpected SystemExit" in result.output) == (1, True)
