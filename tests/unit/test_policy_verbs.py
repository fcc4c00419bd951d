"""`validate`, `schema` and `graph`: their output and exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "policy" / "mistakes"


def ksctl(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `ksctl` as a user does."""
    command = [sys.executable, "-c", "from killswitch.cli import main; main()", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def policy_with_warning(tmp_path: Path, repository: Path) -> Path:
    """A policy with a trigger that no stage uses: a warning, but no error."""
    text = (repository / "policies" / "circuit-breaker" / "policy.yaml").read_text()
    spare = "  triggers:\n    spare: {signal: exposure.leverage, above: 5, on_unknown: warn}\n"
    file = tmp_path / "policy.yaml"
    file.write_text(text.replace("  triggers:\n", spare))
    return file


def test_valid_policies_are_reported_with_their_digest(repository: Path) -> None:
    """Exit 0, nothing on stderr, and no warning: each set has a policy and a route to the log; the digest is last."""
    result = ksctl("validate", repository / "policies")
    assert (result.returncode, result.stderr) == (0, "")
    summary, digest = result.stdout.splitlines()
    written = "".join(path.read_text() for path in (repository / "policies").rglob("*.yaml"))
    stages = written.count(" cooldown: ")  # each stage and each breaker has one
    counts = Counter(re.findall(r"^kind: (\w+)$", written, re.MULTILINE))
    head = re.escape(f"ok: {counts.total()} documents (")
    kinds = re.escape(f"), {stages} stages, ")
    found = re.fullmatch(rf"{head}(.*){kinds}\d+ triggers, 0 warnings", summary)
    assert found is not None, summary
    plural = {"Policy": "Policies"}
    assert sorted(found[1].split(", ")) == sorted(f"{n} {plural.get(kind, f'{kind}s')}" for kind, n in counts.items())
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)


def test_mistakes_are_reported_with_place_caret_and_fix() -> None:
    """Exit 1, with every mistake of the file."""
    result = ksctl("validate", FIXTURES / "many-mistakes-in-one-pass.yaml")
    assert result.returncode == 1
    assert result.stdout.count("error KS") == 4
    assert f"{FIXTURES / 'many-mistakes-in-one-pass.yaml'}:9:37: error KS2001: unknown key `windw`" in result.stdout
    assert result.stdout.endswith(
        "4 errors, 0 warnings; `ksctl explain CODE` says more\n"
        "parts that cannot be read are not checked further: correct them and validate again\n"
    )
    assert result.stderr == ""


def test_json_output_has_every_field() -> None:
    """Stdout has every field of every diagnostic, and nothing else."""
    result = ksctl("validate", FIXTURES / "KS2004-misspelt-mode.yaml", "--output", "json")
    assert result.returncode == 1
    answer = json.loads(result.stdout)
    assert answer == {
        "valid": False,
        "complete": False,
        "digest": None,
        "documents": [],
        "diagnostics": [
            {
                "code": "KS2004",
                "severity": "error",
                "message": "`enforced` is not one of enforce, observe; did you mean `enforce`?",
                "fix": "write enforce",
                "file": str(FIXTURES / "KS2004-misspelt-mode.yaml"),
                "line": 5,
                "column": 9,
                "length": 8,
                "source_line": "  mode: enforced",
            }
        ],
    }


def test_json_output_lists_valid_documents(repository: Path) -> None:
    """Kind, name and file of each document, and the digest of all."""
    answer = json.loads(ksctl("validate", repository / "policies", "--output", "json").stdout)
    assert (answer["valid"], answer["complete"]) == (True, True)
    assert answer["diagnostics"] == []
    assert answer["digest"].startswith("sha256:")
    files = sorted((repository / "policies").glob("*/*.yaml"))
    texts = [text for path in files for text in path.read_text().split("\n---\n")]
    written = [re.findall(r"^kind: (\w+)$|^metadata:(?: \{|\s+)name: ([\w-]+)", text, re.MULTILINE) for text in texts]
    found = [(each["kind"], each["name"]) for each in answer["documents"]]
    assert sorted(found) == sorted((kind, name) for (kind, _), (_, name) in written)


def test_warnings_fail_only_under_strict(policy_with_warning: Path) -> None:
    """Exit 0, and 3 under --strict; the warning is printed either way."""
    lenient, strict = ksctl("validate", policy_with_warning), ksctl("validate", "--strict", policy_with_warning)
    assert (lenient.returncode, strict.returncode) == (0, 3)
    assert "warning KS" in lenient.stdout
    assert lenient.stdout == strict.stdout


def test_errors_are_errors_under_strict_too() -> None:
    """Exit 1 takes precedence over 3."""
    assert ksctl("validate", "--strict", FIXTURES / "KS2004-misspelt-mode.yaml").returncode == 1


def test_a_reference_to_an_invalid_document_is_not_reported(tmp_path: Path, repository: Path) -> None:
    """The ranking exists but has a mistake: reporting it as missing would be misleading."""
    text = (repository / "policies" / "futures-drawdown" / "policy.yaml").read_text()
    (tmp_path / "policy.yaml").write_text(text.replace("rank: default", "rank: mine"))
    alone = ksctl("validate", tmp_path)
    assert "KS3011" in alone.stdout
    ranking = (
        "apiVersion: killswitch.dev/v1\nkind: Ranking\nmetadata: {name: mine}\nspec: {formula: normalised, window: 1}\n"
    )
    (tmp_path / "ranking.yaml").write_text(ranking)
    both = ksctl("validate", tmp_path)
    assert both.returncode == 1
    assert "KS2101" in both.stdout
    assert "KS3011" not in both.stdout


def test_a_missing_folder_is_no_success(tmp_path: Path) -> None:
    """Nor is an empty folder."""
    assert ksctl("validate", tmp_path / "nowhere").returncode == 1
    assert ksctl("validate", tmp_path).returncode == 1


def test_wrong_usage_exits_with_64() -> None:
    """Without a path, and with an unknown option."""
    assert ksctl("validate").returncode == 64
    assert ksctl("validate", "--sloppy", "policies").returncode == 64
    result = ksctl("schema", "Polcy")
    assert result.returncode == 64
    assert "Did you mean Policy?" in result.stderr


def test_an_unknown_verb_gets_the_nearest_one_as_suggestion() -> None:
    """Exit 64; a word that resembles no verb gets no suggestion."""
    result = ksctl("stauts")
    assert result.returncode == 64
    assert "No such command 'stauts'. Did you mean status?" in result.stderr
    assert "Did you mean" not in ksctl("xyzzy").stderr
    assert ksctl("--help").returncode == 0


def test_schemas_are_printed_as_json() -> None:
    """One kind, or all of them if none is named."""
    assert json.loads(ksctl("schema", "Ranking").stdout)["title"] == "Ranking"
    assert json.loads(ksctl("schema").stdout) == json.loads(ksctl("schema", "all").stdout)


def test_the_signal_catalogue_is_printed_as_text_and_json() -> None:
    """Every signal with its unit, its meaning, and when it is unknown."""
    text = ksctl("schema", "signals").stdout
    assert 'equity.drawdown("15m")  (fraction, of a scope)' in text
    signals = json.loads(ksctl("schema", "signals", "--output", "json").stdout)
    described = {"meaning", "partly_known", "unknown"}
    assert {"name", "type", "unit", "arguments", "level", "measures", *described} == set(signals[0])
    assert all(signal["name"] in text and signal["unknown"] in text for signal in signals)


def test_the_graph_is_drawn_in_two_languages(repository: Path) -> None:
    """Mermaid by default; JSON with the digest of the policies."""
    policies = repository / "policies" / "futures-drawdown"
    assert "close-everything" in ksctl("graph", policies).stdout
    assert ksctl("graph", policies, "--format", "dot").stdout.startswith("digraph")
    answer = json.loads(ksctl("graph", policies, "--output", "json").stdout)
    assert answer["format"] == "mermaid"
    assert answer["digest"] == json.loads(ksctl("validate", policies, "--output", "json").stdout)["digest"]


def test_a_graph_of_invalid_policies_is_not_drawn() -> None:
    """Exit 1, the mistakes on stderr, and an empty stdout, so that a pipe gets no partial diagram."""
    result = ksctl("graph", FIXTURES / "KS2004-misspelt-mode.yaml")
    assert (result.returncode, result.stdout) == (1, "")
    assert "KS2004" in result.stderr


def test_validate_loads_nothing_heavy(repository: Path) -> None:
    """It imports only what reading policies needs, which makes it fast."""
    heavy = (
        "numpy",
        "sqlalchemy",
        "rich",
        "aiohttp",
        "killswitch.model.decision",
        "opentelemetry",
        "jinja2",
        "asyncio",
    )
    code = (
        "import sys\nfrom killswitch.cli import ksctl\n"
        f"sys.argv = ['ksctl', 'validate', {str(repository / 'policies')!r}]\n"
        "ksctl.main(standalone_mode=False)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
