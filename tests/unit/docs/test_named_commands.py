"""Every `ksctl …` that a message or a page names exists, with each of its options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from killswitch import cli
from killswitch.cli.live.run import run
from tests.unit.test_help import COMMANDS

COMMAND = re.compile(r"(?<![\w/.-])ksctl +([^`\n]*)")
END = re.compile(r" [|>;#&(]|[;)]|\Z")
"""Where a command ends in a line of a shell, or in a sentence."""
OPTION = re.compile(r"(?<!\S)(--[a-z][a-z-]*)")


def strings(source: str) -> Iterator[str]:
    """The texts of a module, with `{}` for the values in them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def named(text: str) -> set[str]:
    """The commands that a text names, without `ksctl`; continued lines are joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return {found[1][: end.start()] for found in COMMAND.finditer(joined) if (end := END.search(found[1]))}


def wrong(line: str) -> str | None:
    """What of a named command does not exist."""
    words = line.split()
    if not words or not re.fullmatch(r"[a-z]+(?:\|[a-z]+)?,?", words[0]):
        return None  # an option of `ksctl` itself, or a placeholder
    commands = []
    for verb in words[0].strip(",").split("|"):
        path = f"{verb} {words[1]}" if f"{verb} {words[1] if words[1:] else ''}" in COMMANDS else verb
        if path not in COMMANDS and not any(each.startswith(f"{verb} ") for each in COMMANDS):
            return f"there is no `ksctl {verb}`"
        commands.append(COMMANDS.get(path))
    for command in commands:
        if command is None:
            continue  # a group of verbs
        known = {opt for param in command.params if isinstance(param, click.Option) for opt in param.opts}
        known |= {opt for param in command.params if isinstance(param, click.Option) for opt in param.secondary_opts}
        if unknown := set(OPTION.findall(line)) - known - {"--help"}:
            return f"`ksctl {line}` has no {', '.join(sorted(unknown))}"
    return None


def texts(repository: Path) -> Iterator[tuple[str, str]]:
    for root in ("killswitch", "adapters"):
        for path in (repository / root).rglob("*.py"):
            yield from ((str(path.relative_to(repository)), text) for text in strings(path.read_text("utf-8")))
    pages = [*(repository / "docs").rglob("*.md"), *(repository / "killswitch").rglob("*.md"), repository / "README.md"]
    for path in pages:
        if "adr" not in path.parts:  # a decision names what there was
            yield str(path.relative_to(repository)), path.read_text("utf-8")


def test_every_command_that_is_named_exists(repository: Path) -> None:
    """In messages, help texts, docs and diagnostics: the verb exists, and has the options that stand behind it."""
    found = [(place, line) for place, text in texts(repository) for line in named(text)]
    assert len(found) > 300
    assert [(place, why) for place, line in found if (why := wrong(line)) is not None] == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("`ksctl stop --now`", "there is no `ksctl stop`"),
        ("run `ksctl close --live --now`, or wait", "`ksctl close --live --now` has no --now"),
        ("ksctl close --live |\\\n  grep --color x", None),
        ("`ksctl lock|unlock SCOPE --reason r`", None),
        ("`ksctl venues check main --policies p` (--quick)", None),
    ],
)
def test_a_command_that_does_not_exist_is_found(text: str, why: str | None) -> None:
    """By its verb and by its options; what belongs to another program is not looked at."""
    assert [wrong(each) for each in named(text)] == [why]


def test_the_readme_lists_every_exit_code_of_its_own(repository: Path) -> None:
    """A script that waits for one code must not meet another that nobody named."""
    (listed,) = re.findall(r"Exit codes: (.*?)\. Terminals", (repository / "README.md").read_text("utf-8"), re.DOTALL)
    codes = {value for name, value in vars(cli).items() if name.startswith("EXIT_")}
    assert {int(each) for each in re.findall(r"\b(\d+) [a-z]", listed)} == {0, *codes}


def test_the_help_of_run_says_what_sighup_does() -> None:
    """It is no signal that is ignored: it takes the policy files."""
    help_of_run = " ".join((run.help or "").split())
    assert "SIGHUP takes the policy files between two ticks, as `ksctl reload` does" in help_of_run
