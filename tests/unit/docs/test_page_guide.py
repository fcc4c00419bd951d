"""The guide for adding a line of `status` works as written, and names what exists."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.operations.pages import status as status_module
from killswitch.operations.status import LockView, StoreStatus, store_status
from killswitch.render.document import section_text
from tests.runner_world import World
from tests.unit.docs.test_contributor_guides import block
from tests.worlds import after

NOW = after(minutes=10)


def status_with(world: World, *locks: LockView) -> StoreStatus:
    return replace(store_status(world.open(), NOW, 0), locks=locks)


def lock(scope: str, hours: float) -> LockView:
    until = NOW + timedelta(hours=hours)
    return LockView(f"{scope}.json", scope, True, "reduce_only", "", None, until, until, ordered=True, stale=False)


def test_a_new_section_of_status_is_built_as_the_guide_says(repository: Path, world: World) -> None:
    """The lock that ends first is listed, the other is not; without one there is no section."""
    code = block(repository / "docs" / "add-a-line.md", "python")
    names = dict(vars(status_module)) | {"timedelta": timedelta}
    exec(compile(code, "guide", "exec", dont_inherit=True), names)
    build = names["_ending_locks"]
    (shown,) = build(status_with(world, lock("account/a", 0.5), lock("portfolio", 2)))
    assert section_text(shown) == "Locks that end within the hour\n  account/a  2024-01-01T00:40:00Z"
    assert list(build(status_with(world, lock("portfolio", 2)))) == []


GUIDES = sorted(path.name for path in (Path(__file__).parents[3] / "docs").glob("add-a*.md"))


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_names_files_and_folders_that_exist(guide: str, repository: Path) -> None:
    """A path without a placeholder; a newcomer who looks for a file that was moved finds it by luck."""
    text = (repository / "docs" / guide).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:killswitch|adapters|runbooks|tests|tools)/[a-z_/.0-9-]+)`", text))
    assert len(named) > 2
    assert sorted(each for each in named if not (repository / each).exists()) == []


def test_the_guide_names_files_and_definitions_that_exist(repository: Path) -> None:
    """Each file, and each class and function that is named before or behind it."""
    guide = re.sub(
        r"```.*?```", "", (repository / "docs" / "add-a-line.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    files = re.findall(r"`((?:killswitch|runbooks|tests)/[\w/.]+)`", guide)
    assert len(files) > 10
    sources = [repository / file for file in files]
    assert [each for each in sources if not each.exists()] == []
    code = "\n".join(each.read_text(encoding="utf-8") for each in sources if each.suffix == ".py")
    named = set(re.findall(r"`([A-Z]\w+|_\w+|\w+_\w+)`", guide)) - {"NAME"}
    assert {each for each in named if not re.search(rf"\b{each}\b", code)} == set()
