"""The README is correct: its lock reader works, its verbs exist, its policy compiles."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from killswitch.cli import VERBS, ksctl
from tests.unit.docs.walkthrough import missing_lines

NOW = 1_600_000_000.0
OPEN = {"locked": False, "mode": "reduce_only", "alive_until": NOW + 10, "expires_ts": NOW}

Reader = Callable[[Path], str | None]


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def reader(readme: str, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """The README's lock reader at the time NOW."""
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.setattr("time.time", lambda: NOW)
    names: dict[str, Reader] = {}
    exec(code, names)
    return names["trading_lock"]


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        (OPEN, None),
        (OPEN | {"alive_until": NOW - 1}, "reduce_only"),
        (OPEN | {"locked": True}, "reduce_only"),
        (OPEN | {"locked": True, "mode": "all", "alive_until": NOW - 1}, "all"),
        (OPEN | {"locked": "false"}, "reduce_only"),
        (OPEN | {"alive_until": True}, "reduce_only"),
        (OPEN | {"alive_until": math.inf}, "reduce_only"),
        (OPEN | {"alive_until": math.nan}, "reduce_only"),
        (OPEN | {"alive_until": NOW + 86_401}, "reduce_only"),
        ({"locked": False}, "reduce_only"),
        ([], "reduce_only"),
        ("", "reduce_only"),
    ],
    ids=[
        "open",
        "open-but-stale",
        "locked",
        "all-and-stale",
        "locked-as-text",
        "true-life",
        "endless",
        "no-number",
        "over-a-day",
        "v6-open",
        "a-list",
        "empty",
    ],
)
def test_l1_the_printed_reader_treats_an_unreadable_file_as_a_lock(
    reader: Reader, tmp_path: Path, content: object, verdict: str | None
) -> None:
    """Trading is open only if the file says so and is kept alive; a partial, stale or foreign file is a lock."""
    path = tmp_path / "lock.json"
    path.write_text(json.dumps(content) if content != "" else '{"locked": fal', encoding="utf-8")
    assert reader(path) == verdict


def test_l1_the_printed_reader_treats_a_missing_file_as_a_lock(reader: Reader, tmp_path: Path) -> None:
    """Without a file, trading is not allowed."""
    assert reader(tmp_path / "nothing.json") == "reduce_only"


@pytest.mark.parametrize(
    "content",
    [
        b'{"locked": false, "mode": "all", "alive_until": 1e999}',
        b'{"locked": false, "alive_until": ' + b"9" * 400 + b"}",
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b', "locked": false, "alive_until": 1600000010}',
        b'{"locked": false, "alive_until": 1600000010, "x": "\xff"}',
        b'{"locked": false, "alive_until": 1600000010} {"locked": true}',
        b'{"locked": false, "alive_until": 1600000010, "x": "' + b"x" * 2_000_000 + b'"}',
    ],
    ids=["1e999", "huge number", "deep", "not UTF-8", "two", "huge file"],
)
def test_l1_the_printed_reader_treats_every_parse_error_as_a_lock(
    reader: Reader, tmp_path: Path, content: bytes
) -> None:
    """Also errors other than ValueError: an exhausted stack, a value that is no number."""
    path = tmp_path / "lock.json"
    path.write_bytes(content)
    assert reader(path) == "reduce_only"


def test_l1_the_printed_reader_never_blocks_on_a_pipe_and_leaks_no_descriptor(reader: Reader, tmp_path: Path) -> None:
    """A pipe without a writer, one with a silent writer, and a folder are locks at once."""
    pipe, folder = tmp_path / "pipe.json", tmp_path / "folder.json"
    os.mkfifo(pipe)
    folder.mkdir()
    before = len(list(Path("/dev/fd").iterdir()))
    assert (reader(pipe), reader(folder)) == ("reduce_only", "reduce_only")
    writer = os.open(pipe, os.O_RDWR)
    assert reader(pipe) == "reduce_only"
    os.close(writer)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_the_printed_reader_is_the_one_of_the_lock_page(readme: str, repository: Path) -> None:
    """README prints the first reader of docs/lock.md; the second one, of parts, is on that page alone."""
    page = (repository / "docs" / "lock.md").read_text(encoding="utf-8")
    fence = re.compile(r"```python\n(.*?)```", re.DOTALL)
    assert fence.findall(readme) == fence.findall(page)[:1]


def test_every_verb_and_target_in_the_readme_exists(readme: str) -> None:
    """Every `ksctl` verb and every `make` target of the README exists."""
    named = set(re.findall(r"`ksctl ([a-z]+)", readme))
    assert named
    assert named <= set(VERBS)


def test_the_first_commands_of_the_readme_are_targets_of_the_makefile(readme: str, repository: Path) -> None:
    """`make demo` and `make test` come first, and both exist."""
    first = readme[readme.index("```sh") :].split("```")[1]
    targets = re.findall(r"^make ([a-z]+)", first, re.MULTILINE)
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_policy_of_the_readme_compiles(readme: str, tmp_path: Path) -> None:
    """The example loads and compiles without an error or a warning."""
    from killswitch.graph.compile import compile_policies
    from killswitch.policy.loader import load

    (text,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "policy.yaml").write_text(text, encoding="utf-8")
    loaded = load([tmp_path])
    policies, problems = compile_policies(loaded.documents)
    assert (*loaded.diagnostics, *problems) == ()
    assert policies is not None


def test_the_demo_prints_what_the_readme_shows(readme: str, demo: tuple[Path, str]) -> None:
    """Every line of the README's block (but its `…`) is a line of the demo, in that order.

    Locks have no place in the order, and no time: orders do not wait for a disk that is slow to take the lock.
    """
    (block,) = re.findall(r"```text\n(.*?)```", readme, re.DOTALL)
    printed = [line.rstrip() for line in demo[1].splitlines()]
    block_lines = [line.rstrip() for line in block.splitlines() if line.strip() not in {"", "…"}]
    locks, written = ([line for line in lines if "lock written:" in line] for lines in (block_lines, printed))
    assert len(locks) == 2
    assert {line.partition(" ")[2] for line in locks} == {line.partition(" ")[2] for line in written}
    following = iter(printed)
    assert [line for line in block_lines if line not in locks and line not in following] == []


def test_the_report_of_the_demo_has_the_whole_equity_curve(demo: tuple[Path, str]) -> None:
    """A runbook for each stage, and the lowest equity since the first: 86,087.86 of 91,662.22 is 93.92."""
    folder, text = demo
    (incident,) = (folder / "killswitch.sqlite.incidents").iterdir()
    assert sorted(page.name for page in incident.glob("*.md")) == [
        "report.md", "runbook-cut-half.md", "runbook-cut-most.md",
    ]  # fmt: skip
    assert "93.92 at its lowest since" in (incident / "report.md").read_text(encoding="utf-8")
    assert "ksctl report --store" in text


def test_the_demo_names_one_lowest_equity_of_its_run(demo: tuple[Path, str]) -> None:
    """The summary of the run and the row of the same rule in the table have the same minimum, protected or not."""
    lowest = {name: re.search(rf"{name} +lowest +([\d,.]+\d)", demo[1]) for name in ("with the policies", "without")}
    rows = {name: re.search(rf"^ +{name} .*% +([\d,.]+\d)", demo[1], re.MULTILINE) for name in ("staged", "none")}
    assert [found and found[1] for found in lowest.values()] == [found and found[1] for found in rows.values()]


def test_the_demo_writes_its_messages_to_a_file_and_pages_nobody_about_missing_routes(demo: tuple[Path, str]) -> None:
    """The shipped set has a route to the log, which the demo keeps in its folder: one page for each firing."""
    folder, text = demo
    messages = (folder / "messages.log").read_text(encoding="utf-8")
    assert [name for name in ("level 1 cut-half", "level 2 cut-most") if f"[page] {name}" in messages] == [
        "level 1 cut-half", "level 2 cut-most",
    ]  # fmt: skip
    assert "nobody is notified" not in text


@pytest.fixture
def paper_commands(readme: str) -> str:
    """The commands of the section on the paper venue."""
    section = readme[readme.index("## Against a paper venue") :]
    return section.split("```sh\n")[1].split("```")[0]


def test_the_account_of_the_readme_is_in_the_scope_of_the_shipped_policy(
    paper_commands: str, repository: Path, tmp_path: Path
) -> None:
    """The documents of the section compile together; all that is missing is somebody whom a page reaches."""
    from killswitch.graph.compile import compile_loaded
    from killswitch.policy.loader import load

    account = paper_commands.split("<<'END'\n")[1].split("END\n", maxsplit=1)[0]
    (tmp_path / "account.yaml").write_text(account, encoding="utf-8")
    loaded = load([repository / "policies" / "futures-degross" / "policy.yaml", tmp_path])
    policies, problems = compile_loaded(loaded)
    assert {document.kind for document in loaded.documents} == {"Policy", "Unwinding", "Account", "NotificationRoute"}
    assert {each.code for each in problems} == {"KS5023"}
    assert policies is not None


def test_every_command_of_the_paper_section_is_valid(
    paper_commands: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verbs, options and their values are accepted as printed; the section uses every verb that it announces."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-policies").mkdir()
    lines = re.findall(r"^\.venv/bin/ksctl (.*)$", paper_commands, re.MULTILINE)
    commands = [shlex.split(line.split(" & ")[0], comments=True) for line in lines]
    for verb, *arguments in commands:
        command = ksctl.get_command(click.Context(ksctl), verb)
        assert command is not None
        command.make_context(verb, arguments).close()
    assert [command[0] for command in commands] == [
        "paper",
        "validate",
        "notify",
        "plan",
        "run",
        "run",
        "status",
        "reset",
    ]


def test_the_recorded_crashes_of_the_readme_are_on_the_evidence_page(repository: Path) -> None:
    """Both rows of hedged books have the measured drawdown and final equity."""
    page = (repository / "docs" / "evidence.md").read_text(encoding="utf-8")
    hedged = page[page.index("### Hedged books") :]
    rows = [[cell.strip() for cell in line.split("|")] for line in hedged.splitlines() if line.startswith("| ")]
    measured = {(row[1], row[2]): (row[3], row[6]) for row in rows[:12]}
    (with_it, ended), (without, kept) = measured["circuit-breaker", "staged"], measured["none", ""]
    text = " ".join((repository / "README.md").read_text(encoding="utf-8").split())
    assert f"with `circuit-breaker` had a mean drawdown of {with_it} and ended with {ended} of their equity" in text
    assert f"without protection they had {without} and ended with {kept}." in text


def test_the_commands_of_the_desk_print_what_the_readme_shows(readme: str, repository: Path) -> None:
    """On the shipped policies; each line is printed in this order, and each command exits 0.

    The counts of files and documents grow with the sets: any number stands for them.
    """
    section = readme[readme.index("## At the desk") :]
    (block,) = re.findall(r"```console\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    for part in block.split("$ ksctl ")[1:]:
        command, *shown = part.splitlines()
        if "--against" in command:
            continue
        arguments = [str(repository / each) if each.startswith("policies") else each for each in command.split()]
        done = CliRunner().invoke(ksctl, arguments, env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        assert missing_lines("\n".join(shown), done.output, numbers_differ=command.split()[0] in ("fmt", "lint")) == []
