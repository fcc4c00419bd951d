"""`ksctl init`: folders that validate, test and prove, for every shipped set, and never over what is there."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.cli import ksctl
from killswitch.graph.compile import compile_loaded
from killswitch.operations.first_set import REFUTED
from killswitch.policy.loader import load
from killswitch.policy.schema.account import AccountDocument
from tests.unit.docs.test_tutorial_and_guides import free_port
from tests.unit.docs.walkthrough import run_blocks

REPOSITORY = Path(__file__).parents[3]
SETS = tuple(sorted(each.name for each in (REPOSITORY / "policies").iterdir() if each.is_dir()))
WAIT = """python - <<'END'
import socket, time
for attempt in range(600):
    try:
        socket.create_connection(('127.0.0.1', PORT)).close()
        break
    except OSError:
        time.sleep(0.1)
END"""


def init(*arguments: str | Path, terminal: str | None = None) -> Result:
    return CliRunner().invoke(ksctl, ["init", *map(str, arguments)], input=terminal)


def accounts_of(folder: Path) -> list[AccountDocument]:
    return [each.model for each in load([folder]).documents if isinstance(each.model, AccountDocument)]


@pytest.mark.parametrize("name", SETS)
def test_the_first_commands_of_every_shipped_set_work_as_printed(name: str, tmp_path: Path) -> None:
    """Written by `init`, then each printed command in its order on the paper venue; only the port is another one."""
    pytest.importorskip("z3", reason="the extra `prove` is not installed")
    venues = ["--venue", "paper"] * (2 if name == "several-exchanges" else 1)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    begin = f"ksctl init desk --set {name} {' '.join(venues)}"
    ((printed, status),) = run_blocks([begin], tmp_path, {"PATH": path, "COLUMNS": "200"}, 120)
    assert status == 0, printed
    commands = re.findall(r"^ *(ksctl .+)$", printed.partition("\nNext\n")[2], re.MULTILINE)
    verbs = [each.split()[1] for each in commands]
    assert verbs == ["paper", "validate", "lint", "test", "prove", "plan", "run", "schema"]
    port = free_port()
    account = tmp_path / "desk" / "account.yaml"
    account.write_text(account.read_text(encoding="utf-8").replace("8701", port), encoding="utf-8")
    paper, *others = [each.replace("8701", port) for each in commands]
    outputs = run_blocks([paper, WAIT.replace("PORT", port), *others], tmp_path, {"PATH": path, "COLUMNS": "200"}, 240)
    found = dict(zip(["paper", "wait", *verbs[1:]], outputs, strict=True))
    expected = {verb: 1 if verb == "prove" and name in REFUTED else 0 for verb in found}
    assert {verb: status for verb, (_, status) in found.items()} == expected, outputs
    assert "100.00%" in found["test"][0]
    remarked = [each for each in commands if "exits 1" in each]
    assert [each.split()[1] for each in remarked] == (["prove"] if name in REFUTED else []), "a failure is announced"
    assert "0 errors, 0 warnings" in found["lint"][0]
    ran = (tmp_path / "desk.sqlite").exists()
    assert ran


@pytest.mark.parametrize(
    ("book", "expected"),
    [
        ("hedged", "one-exchange-hedged"),
        ("directional", "one-exchange-directional"),
        ("concentrated", "one-exchange-directional"),
        ("spot", "spot-drawdown"),
    ],
)
def test_the_kind_of_book_chooses_the_recommended_set(book: str, expected: str, tmp_path: Path) -> None:
    """As the chooser of README says; the policies are the shipped ones, so their scenarios and figures hold."""
    done = init(tmp_path / "desk", "--venue", "paper", "--book", book)
    assert done.exit_code == 0, done.output
    written = (tmp_path / "desk" / "policy.yaml").read_text(encoding="utf-8")
    line, _, rest = written.partition("\n")
    assert rest == (REPOSITORY / "policies" / expected / "policy.yaml").read_text(encoding="utf-8")
    assert line == "# yaml-language-server: $schema=killswitch.schema.json"
    schema = json.loads((tmp_path / "desk" / "killswitch.schema.json").read_text(encoding="utf-8"))
    assert schema == json.loads((REPOSITORY / "policies/killswitch.schema.json").read_text(encoding="utf-8"))


def test_accounts_at_real_venues_refer_to_their_secrets_and_observe(tmp_path: Path) -> None:
    """One account for each venue, with the credentials that its venue needs, and none of them in the file."""
    accounts = ("--venue", "okx", "--account", "main", "--venue", "binanceusdm", "--account", "hedge")
    done = init(tmp_path / "desk", *accounts, "--book", "several")
    assert done.exit_code == 0, done.output
    main, hedge = accounts_of(tmp_path / "desk")
    assert [each.metadata.name for each in (main, hedge)] == ["main", "hedge"]
    assert {each.spec.execution for each in (main, hedge)} == {"observe"}
    assert [str(each) for each in main.spec.credentials.values()] == [
        "env:MAIN_KEY", "env:MAIN_SECRET", "env:MAIN_PASSPHRASE"
    ]  # fmt: skip
    assert list(hedge.spec.credentials) == ["key", "secret"]
    policies, problems = compile_loaded(load([tmp_path / "desk"]))
    assert policies is not None and problems == ()
    assert "export MAIN_KEY=" in done.output and "ksctl venues check --policies" in done.output


def test_two_accounts_at_one_venue_have_names_of_their_own(tmp_path: Path) -> None:
    """Numbered in scopes and reports, because a venue's name is a scope."""
    assert init(tmp_path / "desk", "--venue", "bybit", "--venue", "bybit", "--book", "several").exit_code == 0
    assert [(each.metadata.name, each.spec.venue) for each in accounts_of(tmp_path / "desk")] == [
        ("bybit-1", "bybit-1"), ("bybit-2", "bybit-2"),
    ]  # fmt: skip


@pytest.mark.parametrize("there", ["account.yaml", "notes.txt", ".hidden"])
def test_nothing_is_written_into_a_folder_that_holds_a_file(there: str, tmp_path: Path) -> None:
    """Whatever it is: the documents of two sets in one folder would be one set."""
    desk = tmp_path / "desk"
    desk.mkdir()
    (desk / there).write_text("mine", encoding="utf-8")
    done = init(desk, "--venue", "paper", "--book", "hedged")
    assert (done.exit_code, "nothing was changed" in done.output) == (1, True)
    assert [(each.name, each.read_text(encoding="utf-8")) for each in desk.iterdir()] == [(there, "mine")]
    assert [each.name for each in tmp_path.iterdir()] == ["desk"]


def test_a_file_or_a_link_in_place_of_the_folder_stays_as_it_is(tmp_path: Path) -> None:
    """A link is not followed: what it points to is somebody else's."""
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name in ("file", "link"):
        assert init(tmp_path / name, "--venue", "paper", "--book", "hedged").exit_code == 1
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    assert list((tmp_path / "empty").iterdir()) == []
    assert init(tmp_path / "empty", "--venue", "paper", "--book", "hedged").exit_code == 0


def test_a_set_that_is_not_valid_is_reported_and_not_written(tmp_path: Path) -> None:
    """A currency that the set does not watch is a warning of the account, at its place."""
    done = init(tmp_path / "desk", "--venue", "paper", "--set", "capital-breaker", "--currency", "EUR")
    assert done.exit_code == 1, done.output
    assert "account.yaml:5:" in done.output and "KS5010" in done.output and "nothing was written" in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "required: FOLDER, --venue, --book or --set"),
        (("desk",), "required: --venue, --book or --set"),
        (("desk", "--venue", "kraken", "--book", "hedged"), "kraken has spot, margin"),
        (("desk", "--venue", "bybit", "--book", "hedged", "--market", "spot"), "give --market swap"),
        (("desk", "--venue", "paper", "--book", "hegded"), "Did you mean hedged?"),
        (("desk", "--venue", "paper", "--set", "../futures-degross"), "--set is one of"),
        (("desk", "--venue", "paper", "--set", "futures-degros"), "Did you mean futures-degross?"),
        (("desk", "--venue", "paper", "--set", "futures-degross", "--book", "spot"), "either --book or --set"),
        (("desk", "--venue", "paper", "--book", "several"), "needs two accounts or more"),
        (("desk", "--venue", "paper", "--account", "a", "--account", "b", "--book", "spot"), "one for each"),
        (
            ("desk", "--venue", "okx", "--venue", "bybit", "--account", "a", "--account", "a", "--book", "several"),
            "twice",
        ),
        (("desk", "--venue", "binanceusd", "--book", "hedged"), "no venue is called binanceusd"),
        (("desk", "--venue", "papper", "--book", "hedged"), "paper is the paper venue, which needs no account"),
        (("desk", "--venue", "paper", "--account", "a: b", "--book", "hedged"), "a: b"),
    ],
)
def test_what_is_missing_or_wrong_is_named_and_nothing_is_written(
    arguments: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody can be asked; each message has the way out."""
    monkeypatch.chdir(tmp_path)
    done = init(*arguments)
    assert done.exit_code in (1, 2)
    assert says in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_is_asked_what_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folder, venues and the kind of book, each with a default; what is given is not asked."""
    monkeypatch.setattr("killswitch.cli.policy.init.stdin_is_terminal", lambda: True)
    monkeypatch.chdir(tmp_path)
    done = init(terminal="\n\ndirectional\nhedge\n")
    assert done.exit_code == 0, done.output
    assert "hedges whose legs are at several exchanges" in done.output
    assert [each.metadata.name for each in accounts_of(tmp_path / "my-policies")] == ["hedge"]
    assert init("other", "--book", "spot", terminal="kraken\n\n").exit_code == 0
    (account,) = accounts_of(tmp_path / "other")
    assert (account.metadata.name, account.spec.exchange, account.spec.market) == ("main", "kraken", "spot")
