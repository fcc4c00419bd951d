"""`make mutants`: mutation testing. Change the code of a package in one place at a time, and check that a test fails.

Names of packages as arguments select packages; `--survivors` also prints the surviving mutants. Each package is tested
in a copy under build/mutants, with one process at the lowest priority. A run can be stopped at any time: the next one
tests the remaining mutants, those of changed code, and the earlier survivors.

`--sample=200` tests only so many mutants, drawn at random, without the type checker: an estimate in minutes, not hours.
"""

from __future__ import annotations

import filecmp
import random
import shutil
import subprocess
import sys
from pathlib import Path

from tests.mutants.packages import PACKAGES, MutatedPackage
from tests.mutants.score import changes, count_verdicts, excused, verdicts

TOP = Path(__file__).resolve().parents[2]
COPIED = ("killswitch", "adapters", "policies", "runbooks", "docs", "tests")
BATCH = 200
"""Survivors on one command line."""
TIMEOUT_MULTIPLIER = 3
"""A mutant may take this multiple of the time of its tests: dozens of mutants wait for ever."""
SEED = 7
"""Draws the same sample at the same commit."""

_GENERATE = """
import mutmut.__main__ as mutmut
mutmut.set_mutant_under_test("mutant_generation")
mutmut.makedirs("mutants", exist_ok=True)
mutmut.copy_src_dir(), mutmut.copy_also_copy_files(), mutmut.setup_source_paths(), mutmut.create_mutants(1)
"""


def main(arguments: list[str]) -> int:
    """Test the named packages, or all; 1 if one catches less than nine of ten mutants."""
    wanted = [word for word in arguments if not word.startswith("-")]
    sizes = [int(word.removeprefix("--sample=")) for word in arguments if word.startswith("--sample=")]
    all_pass = True
    for package in PACKAGES:
        if not wanted or package.name in wanted:
            folder = TOP / "build" / "mutants" / package.name
            prepare(package, folder, type_check=not sizes)
            if sizes:
                attempt_sample(folder, sizes[-1])
            else:
                attempt(folder)
            all_pass &= report(package, folder, survivors="--survivors" in arguments)
    return 0 if all_pass else 1


def prepare(package: MutatedPackage, folder: Path, *, type_check: bool) -> None:
    """Update the copy without touching unchanged files, so that earlier results remain valid."""
    for name in COPIED:
        shutil.copytree(
            TOP / name, folder / name, dirs_exist_ok=True, copy_function=_copy_changed, ignore=shutil.ignore_patterns(
                "__pycache__", "*.pyc"
            ),
        )  # fmt: skip
        for old in sorted((folder / name).rglob("*"), reverse=True):
            if "__pycache__" not in old.parts and not (TOP / old.relative_to(folder)).exists():
                shutil.rmtree(old) if old.is_dir() else old.unlink()
    settings = (TOP / "pyproject.toml").read_text("utf-8") + _settings(package, type_check=type_check)
    target = folder / "pyproject.toml"
    if not target.exists() or target.read_text("utf-8") != settings:
        target.write_text(settings, "utf-8")


def _copy_changed(source: str, target: str) -> str:
    """Copy a changed file with the present time as its modification time, by which mutmut detects changes."""
    if not Path(target).exists() or not filecmp.cmp(source, target, shallow=False):
        shutil.copyfile(source, target)
    return target


def _settings(package: MutatedPackage, *, type_check: bool) -> str:
    tests = sorted(str(path.relative_to(TOP)) for pattern in package.tests for path in TOP.glob(pattern))
    checker = [sys.executable, "-m", "mypy", "--output", "json", "--no-warn-unused-ignores", package.source]
    checked = f"type_check_command = {checker}\n" if type_check else ""
    return f"""
[tool.mutmut]
source_paths = ["killswitch"]
only_mutate = ["{package.source}/*.py"]
also_copy = {[name for name in COPIED if name not in ("killswitch", "tests")]}
pytest_add_cli_args = {["-p", "no:cacheprovider", *(f"--deselect={test}" for test in package.without)]}
pytest_add_cli_args_test_selection = {tests}
{checked}timeout_multiplier = {TIMEOUT_MULTIPLIER}
"""


def attempt(folder: Path) -> None:
    """Test the remaining mutants, then the earlier survivors: a new test may catch them."""
    before = [name for name, verdict in verdicts(folder).items() if verdict in ("survived", "no tests")]
    _mutmut(folder)
    for begin in range(0, len(before), BATCH):
        _mutmut(folder, *before[begin : begin + BATCH])


def attempt_sample(folder: Path, size: int) -> None:
    """Test `size` mutants drawn at random from all; the others remain unchecked."""
    subprocess.run([sys.executable, "-c", _GENERATE], cwd=folder, check=True)
    names = sorted(verdicts(folder))
    _mutmut(folder, *random.Random(SEED).sample(names, min(size, len(names))))


def _mutmut(folder: Path, *names: str) -> None:
    command = ["nice", "-n", "19", sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names]
    log = folder / "mutmut.log"
    with log.open("a", encoding="utf-8") as output:
        done = subprocess.run(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(f"mutmut ended with {done.returncode}; see {log}")


def report(package: MutatedPackage, folder: Path, *, survivors: bool) -> bool:
    """Print the scores of a package and its modules; True if nine of ten mutants were caught."""
    found = verdicts(folder)
    alive = [name for name, verdict in found.items() if verdict in ("survived", "no tests")]
    changed = changes(folder, alive)
    reasons = excused()
    equivalent = frozenset(name for name, change in changed.items() if change in reasons)
    total = count_verdicts(found, equivalent)
    print(total.line(package.name))
    for module in sorted({name.split(".")[2] for name in found}):
        part = {name: verdict for name, verdict in found.items() if name.split(".")[2] == module}
        print("  " + count_verdicts(part, equivalent).line(module), flush=True)
    if survivors:
        for name in alive:
            if name not in equivalent:
                where, was, now = changed[name]
                print(f"- `{where}`: ``{was}`` → ``{now}``")
    return total.share >= 0.9


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
