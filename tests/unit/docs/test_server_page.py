"""docs/server.md: its commands and units use options that exist, and its backup is a store."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from killswitch.cli import ksctl
from killswitch.store.sqlite import open_store


def _page(repository: Path) -> str:
    return (repository / "docs" / "server.md").read_text(encoding="utf-8").replace("\\\n", " ")


def _shown(page: str) -> list[list[str]]:
    """The words after `ksctl` of each command that the blocks of the page run."""
    blocks = re.findall(r"```(?:sh|ini)\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if re.search(r"\bksctl ", line)]
    commands = [re.split(r"\bksctl ", line, maxsplit=1)[1].split(" #")[0].rstrip("'") for line in lines]
    return [shlex.split(command) for command in commands]


def test_its_commands_are_commands_of_ksctl(repository: Path) -> None:
    """Each verb and each option exists, in shell blocks and in units."""
    commands = [words for words in _shown(_page(repository)) if words[0] != "--version"]
    assert len(commands) > 8
    for words in commands:
        command: click.Command = ksctl
        while isinstance(command, click.Group):
            verb = words.pop(0)
            found = command.get_command(click.Context(command), verb)
            assert found is not None, verb
            command = found
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, words


def test_its_backup_command_copies_a_store_that_is_open(repository: Path, tmp_path: Path) -> None:
    """While a runner has the store open, the copy is complete and readable, and only its owner may read it."""
    if shutil.which("sqlite3") is None:
        pytest.skip("needs the program sqlite3")
    (line,) = re.findall(r"^sudo -u killswitch (sh -c 'umask.*)$", _page(repository), re.MULTILINE)
    store = open_store(str(tmp_path / "ks.sqlite"))
    try:
        subprocess.run(line.replace("/var/lib/killswitch", str(tmp_path)), shell=True, check=True)
    finally:
        store.close()
    copy = tmp_path / "backup.sqlite"
    assert copy.stat().st_mode & 0o777 == 0o600
    open_store(str(copy), read_only=True).close()


def test_its_units_are_valid(repository: Path, tmp_path: Path) -> None:
    """As far as `systemd-analyze verify` checks them, with a program that exists."""
    if (program := shutil.which("systemd-analyze")) is None:
        pytest.skip("needs systemd-analyze")
    units = re.findall(r"```ini\n(.*?)```", (repository / "docs" / "server.md").read_text(encoding="utf-8"), re.DOTALL)
    names = ["killswitch.service", "killswitch-probe.service", "killswitch-restart.service", "killswitch-probe.timer"]
    for name, unit in zip(names, units, strict=True):
        (tmp_path / name).write_text(unit.replace("/usr/local/bin/ksctl", "/bin/true"), encoding="utf-8")
    done = subprocess.run([program, "verify", *names], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
