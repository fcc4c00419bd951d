"""Configurations with random damage: an import is refused, or makes a folder that validates; never anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from killswitch.accounts.plug_ins import load_plug_ins
from killswitch.cli.policy.init import problems_of
from killswitch.operations.importing.freqtrade import import_freqtrade
from killswitch.operations.importing.killswitch_v6 import import_v6
from killswitch.operations.importing.report import ImportedFolder, ImportRefusedError
from killswitch.policy.diagnostics.diagnostic import has_errors
from tests.unit.operations.importing.test_freqtrade_import import CONFIG as FREQTRADE
from tests.unit.operations.importing.test_freqtrade_import import STRATEGY
from tests.unit.operations.importing.test_freqtrade_protections import DOCUMENTED
from tests.unit.operations.importing.test_killswitch_v6 import CONFIG as V6

PLUG_INS = load_plug_ins()
PIECES = (
    "", " ", "\n", "null", "true", "-1", "0", "1e999", ".nan", '"', "'", "[", "]", "{", "}", ":", ",", "&a ", "*a",
    "<<: ", "!!x ", "- ", "#", "//", "é", "\t", "''", "999999999999999999999", "[[]]", "{a: b}", "${X}", "x" * 300,
)  # fmt: skip
damage = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(PIECES)), min_size=1, max_size=4)
"""Where in the text, how many characters go, and what comes instead."""
LONG_STRATEGY = STRATEGY.replace("protections = [", f"protections = [{', '.join(DOCUMENTED)}, ")


def damaged(text: str, changes: list[tuple[float, int, str]]) -> str:
    for place, count, piece in changes:
        at = int(place * len(text))
        text = text[:at] + piece + text[at + count :]
    return text


def of_freqtrade(folder: Path, config: str, strategy: str) -> ImportedFolder:
    (folder / "c.json").write_text(config, encoding="utf-8")
    (folder / "s.py").write_text(strategy, encoding="utf-8")
    return import_freqtrade([folder / "c.json"], folder / "s.py", [], PLUG_INS)


def of_v6(folder: Path, config: str) -> ImportedFolder:
    (folder / "c.yaml").write_text(config, encoding="utf-8")
    return import_v6(folder / "c.yaml", [])


IMPORTS: dict[str, tuple[str, Callable[[Path, str], ImportedFolder]]] = {
    "configuration of freqtrade": (FREQTRADE, lambda folder, text: of_freqtrade(folder, text, LONG_STRATEGY)),
    "strategy of freqtrade": (LONG_STRATEGY, lambda folder, text: of_freqtrade(folder, FREQTRADE, text)),
    "version 6": (V6, of_v6),
}


@pytest.mark.filterwarnings("ignore::SyntaxWarning")  # of the damaged Python text, from its compiler
@pytest.mark.parametrize("name", IMPORTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=damage)
def test_a_damaged_configuration_is_refused_or_imports_to_a_folder_that_validates(
    tmp_path_factory: pytest.TempPathFactory, name: str, changes: list[tuple[float, int, str]]
) -> None:
    """Up to four places, each with some characters replaced by others."""
    text, read = IMPORTS[name]
    try:
        found = read(tmp_path_factory.mktemp("damaged"), damaged(text, changes))
    except ImportRefusedError:
        return
    assert not has_errors(problems_of(found.files)), problems_of(found.files)
