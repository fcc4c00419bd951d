"""The Containerfile without a container engine: its sources exist, and its commands work."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

WAIT_LIMIT = 900.0
"""Seconds for one step: a deadline for a slow machine and a slow network, not an expectation."""
UNREACHABLE = ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError", "name resolution")


def steps(repository: Path) -> list[tuple[str, str]]:
    """(instruction, arguments) of every line, with continued lines joined."""
    text = (repository / "Containerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined)]


def stages(repository: Path) -> list[list[tuple[str, str]]]:
    """The steps of each stage, its FROM first."""
    found: list[list[tuple[str, str]]] = []
    for step in steps(repository):
        if step[0] == "FROM":
            found.append([])
        found[-1].append(step)
    return found


def copied(stage: list[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """(sources, target) of every COPY out of the tree."""
    each = [shlex.split(rest) for word, rest in stage if word == "COPY" and not rest.startswith("--from=")]
    return [(words[:-1], words[-1]) for words in each]


def test_every_copied_path_exists_and_is_not_ignored(repository: Path) -> None:
    """Otherwise a build would fail at its first COPY, or lack a file that the wheel needs."""
    build, _ = stages(repository)
    sources = [source.rstrip("/") for paths, _ in copied(build) for source in paths]
    assert [source for source in sources if not (repository / source).exists()] == []
    rules = (repository / ".containerignore").read_text(encoding="utf-8").splitlines()
    included = [rule[1:] for rule in rules if rule.startswith("!")]
    assert "*" in rules
    assert sorted(included) == sorted(sources)
    assert not any(fnmatch.fnmatch(source, rule) for source in sources for rule in rules if rule.startswith("**"))


def test_the_image_is_not_root_and_contains_no_build_tools(repository: Path) -> None:
    """Two stages of one ordinary image; the last one has no pip, is not root, and gets what git sources need: git,
    ssh-keygen and gpg, and a name for its user, without which ssh-keygen does not start."""
    build, final = stages(repository)
    assert [build[0][1], final[0][1]] == ["python:3.13-slim AS build", "python:3.13-slim"]
    instructions = dict(final)
    user, _, group = instructions["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert instructions["ENTRYPOINT"] == '["ksctl"]'
    assert [rest for word, rest in final if word == "COPY"] == ["--from=build /opt/killswitch /opt/killswitch"]
    (run,) = [rest for word, rest in final if word == "RUN"]
    uninstall, *others = (shlex.split(command) for command in run.split(" && "))
    assert uninstall[:4] == ["python", "-m", "pip", "uninstall"]
    (install,) = (words for words in others if "install" in words)
    assert [word for word in install[2:] if not word.startswith("-")] == ["git", "openssh-client", "gpg"]
    assert "--no-install-recommends" in install
    assert ["rm", "-rf", "/var/lib/apt/lists/*"] in others
    (line,) = (words[1] for words in others if words[0] == "echo")
    assert line.split(":")[2:4] == [user, group]
    assert final.index(("USER", instructions["USER"])) > final.index(("RUN", run))


def test_every_command_of_the_build_stage_works(repository: Path, tmp_path: Path) -> None:
    """The commands run as written, in a separate folder; `ksctl` then starts, with all adapters, policies and runbooks.

    The dependencies of the wheel are not downloaded again: those of the test environment must satisfy the same
    constraints, and the built environment uses them.
    """
    build, _ = stages(repository)
    place, opt = tmp_path / "build", tmp_path / "opt"
    place.mkdir()
    opt.mkdir()
    built = opt / "killswitch"
    for word, rest in build:
        if word == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                copy(repository / source, place, source, target)
        elif word == "RUN" and "--python /opt/killswitch" in rest:
            run(rest.replace("/opt/", f"{opt}/"), place, tmp_path, PIP_NO_DEPS="1", PIP_NO_INDEX="1")
            here = rest.replace("/opt/killswitch/bin/python", shlex.quote(sys.executable))
            would = run(here.replace("--quiet", ""), place, tmp_path, PIP_DRY_RUN="1", PIP_NO_INDEX="1")
            assert re.findall(r"^Would install (.*)$", would, re.MULTILINE) == [f"killswitch-{version('killswitch')}"]
        elif word == "RUN":
            run(rest.replace("/opt/", f"{opt}/"), place, tmp_path)
    (own,) = built.glob("lib/python*/site-packages")
    assert sorted(each.name for each in own.iterdir() if "killswitch" not in each.name) == []
    (own / "needed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    shown = subprocess.run(
        [str(built / "bin" / "ksctl"), "--version"], capture_output=True, text=True, check=True, cwd=opt,
        env=environment,
    )  # fmt: skip
    assert re.fullmatch(r"ksctl \d+\.\d+\.\d+\n", shown.stdout)
    program = (
        "import ccxt, killswitch, killswitch_ccxt, killswitch_alpaca, killswitch_paper\n"
        "from killswitch.accounts.validation import adapter_names\n"
        "from killswitch.content import policies_folder, runbooks_folder\n"
        "print(*adapter_names())\n"
        "print((policies_folder() / 'futures-drawdown' / 'policy.yaml').is_file(),"
        " (runbooks_folder() / 'report.md.j2').is_file())\n"
        "print(killswitch.__file__)\n"
    )
    imported = subprocess.run(
        [str(built / "bin" / "python"), "-c", program], capture_output=True, text=True, check=False, cwd=opt,
        env=environment,
    )  # fmt: skip
    assert (imported.stdout, imported.stderr) == (f"alpaca ccxt paper\nTrue True\n{own}/killswitch/__init__.py\n", "")


def copy(path: Path, place: Path, source: str, target: str) -> None:
    """Copy as COPY does: a folder's content into the target, a file into the target folder."""
    into = place / target
    if path.is_dir():
        shutil.copytree(path, into, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        return
    into.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, into / Path(source).name)


def run(command: str, place: Path, tmp_path: Path, **pip: str) -> str:
    """Run one RUN by /bin/sh with this interpreter as `python`; its stdout. Skip where no index is reachable."""
    here = tmp_path / "bin"
    here.mkdir(exist_ok=True)
    python = here / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "PIP_NO_COMPILE": "1", **pip}
    done = subprocess.run(
        ["/bin/sh", "-ec", command], cwd=place, env=environment, capture_output=True, text=True, timeout=WAIT_LIMIT,
        check=False,
    )  # fmt: skip
    if done.returncode and any(word in done.stderr for word in UNREACHABLE) and not os.environ.get("CI"):
        pytest.skip("needs a package index, and none can be reached")
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout
