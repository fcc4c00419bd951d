"""The repository: committed files name no machine, the wheel is complete, and the import contracts find violations."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

# Written in pieces, so that this file does not find itself.
HOSTS_AND_PLACES = (
    "pypi" + ".org",
    "python" + "hosted.org",
    "npmjs" + ".org",
    "index" + "-url = ",
    "/opt/" + "pypi",
    "/opt/" + "wheels",
    "/ro" + "ot/",
    "/wo" + "rk/",
    "/ho" + "me/",
    "/Us" + "ers/",
)


MOST_MODULES, MOST_SMALL, SUBJECT = 25, 40, 80

KINDS = ("killswitch/graph/actions", "killswitch/planning/actions", "killswitch/execution/effects")
"""Folders of registries: each kind is its own file, however small."""


def committed_files(repository: Path) -> list[Path]:
    """Existing files that git tracks; skips if the tree is not a git checkout."""
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=repository, check=True, capture_output=True, text=True
    ).stdout
    return [repository / name for name in listed.split("\0") if name and (repository / name).is_file()]


def test_no_committed_file_names_a_registry_or_a_machine(repository: Path) -> None:
    """A clone works anywhere: no file names a package index or a path of somebody's machine."""
    found = [
        f"{path.relative_to(repository)}: {phrase}"
        for path in committed_files(repository)
        for phrase in HOSTS_AND_PLACES
        if phrase in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert found == []


def test_no_folder_has_more_modules_than_the_limit(repository: Path) -> None:
    """At most 25 in any folder of the program, its adapters and its tests."""
    modules = [path for path in committed_files(repository) if path.suffix == ".py"]
    count = Counter(path.parent.relative_to(repository).as_posix() for path in modules)
    assert {folder: number for folder, number in count.items() if number > MOST_MODULES} == {}


def test_few_modules_are_below_the_minimum_size(repository: Path) -> None:
    """At most 40 of the program and its adapters have fewer than 80 lines, except kinds and short `__init__` files."""
    program = (repository / "killswitch", repository / "adapters")
    python = [path for path in committed_files(repository) if path.suffix == ".py"]
    modules = [path for path in python if any(path.is_relative_to(folder) for folder in program)]
    lines = {path.relative_to(repository).as_posix(): len(path.read_text().splitlines()) for path in modules}
    counted = {name: many for name, many in lines.items() if Path(name).parent.as_posix() not in KINDS}
    small = [name for name, n in counted.items() if n < SUBJECT and not (name.endswith("__init__.py") and n < 10)]
    assert len(small) <= MOST_SMALL, small


def test_constraints_pin_every_declared_dependency_and_nothing_but_versions(repository: Path) -> None:
    """Each line of constraints.txt is `name==version`, with an environment marker where Pythons differ."""
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    one = r"[a-z_]+ (?:[<>=!]+|in) '[^']+'"
    pin = re.compile(rf"(?P<name>[a-z0-9-]+)==[0-9][0-9a-z.+]*( ; {one}( and {one})*)?")
    pinned = set()
    for line in lines:
        match = pin.fullmatch(line)
        assert match, line
        pinned.add(match["name"])
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    declared = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(each for extra in project["project"]["optional-dependencies"].values() for each in extra),
        *project["dependency-groups"]["dev"],
    ]
    names = {re.split(r"[<>=!~\[ ;]", each)[0].lower().replace(".", "-").replace("_", "-") for each in declared}
    assert set() == names - pinned


def installed_for(wanted: list[str], extras: frozenset[str], found: set[str]) -> set[str]:
    """The distributions installed by these requirements, as far as this system needs them."""
    for needed in map(Requirement, wanted):
        name = needed.name.lower().replace("_", "-")
        if name in found or not (needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras)):
            continue
        found.add(name)
        installed_for(distribution(name).requires or [], frozenset({"", *needed.extras}), found)
    return found


def test_no_two_packages_of_an_install_own_the_same_file(repository: Path) -> None:
    """An install must not depend on its order: if two packages have the same file, the later one breaks the other."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["market"]]
    owners: dict[str, set[str]] = {}
    for name in installed_for(wanted, frozenset({""}), set()):
        for file in distribution(name).files or ():
            if file.suffix in (".py", ".so"):
                owners.setdefault(str(file), set()).add(name)
    assert len(owners) > 1000
    assert {file: names for file, names in owners.items() if len(names) > 1} == {}


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from this tree without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(repository)], check=True, capture_output=True)
    (built,) = folder.glob("killswitch-*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_has_both_packages_with_types(wheel: zipfile.ZipFile) -> None:
    """The wheel has the core and the paper adapter, both with their types."""
    names = set(wheel.namelist())
    assert {
        "killswitch/py.typed",
        "killswitch/cli/__init__.py",
        "killswitch_paper/py.typed",
        "killswitch_paper/__init__.py",
    } <= names


def test_the_wheel_has_the_shipped_policies(wheel: zipfile.ZipFile, repository: Path) -> None:
    """Every policy folder of the tree is in the package, so that a risk team can copy it from there."""
    shipped = {str(path.relative_to(repository / "policies")) for path in (repository / "policies").rglob("*.yaml")}
    inside = {
        name.removeprefix("killswitch/_content/policies/")
        for name in wheel.namelist()
        if name.startswith("killswitch/_content/policies/")
    }
    assert shipped
    assert shipped <= inside


def test_the_wheel_has_the_template_of_the_backtest_page(wheel: zipfile.ZipFile) -> None:
    """The template is in the folder of the code that renders it."""
    assert "killswitch/render/page.html.j2" in wheel.namelist()


def test_the_wheel_names_its_command_and_its_adapter(wheel: zipfile.ZipFile) -> None:
    """`ksctl` and the adapters are entry points, and the licence is included."""
    (points,) = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    text = wheel.read(points).decode()
    assert "ksctl = killswitch.cli:main" in text
    for name in ("paper", "ccxt", "alpaca"):
        assert f"\n{name} = killswitch_{name}:adapter\n" in text
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


FORBIDDEN = {
    ("killswitch/model/clock.py", "killswitch.graph"): "Lower layers never import higher ones",
    ("killswitch/planning/__init__.py", "time"): "Pure packages reach no clock, no randomness, no I/O",
    ("killswitch/engine/__init__.py", "killswitch.store"): "Pure packages reach no clock, no randomness, no I/O",
    ("killswitch/runner/__init__.py", "killswitch_paper"): "The core never imports an adapter by name",
    (
        "adapters/killswitch_paper/__init__.py",
        "killswitch.planning",
    ): "Adapters see the model and the paper market only",
}


def test_every_violation_of_an_import_contract_is_found(repository: Path, tmp_path: Path) -> None:
    """One forbidden import for each contract: `lint-imports`, as in `make check`, names contract and import."""
    for name in ("killswitch", "adapters"):
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "pyproject.toml", tmp_path)
    for file, imported in FORBIDDEN:
        with (tmp_path / file).open("a", encoding="utf-8") as module:
            module.write(f"\nimport {imported}\n")
    verdict = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(tmp_path / "adapters")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert verdict.returncode != 0, verdict.stdout
    output = re.split(r"^(.+)\n-+\n", verdict.stdout[verdict.stdout.index("Broken contracts") :], flags=re.MULTILINE)
    sections = dict(zip(output[1::2], output[2::2], strict=True))
    for (file, imported), contract in FORBIDDEN.items():
        name = file.removeprefix("adapters/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        assert f"{name} -> {imported} (l." in sections[contract], verdict.stdout
