"""Validation of runbooks: unknown names, and templates that reference what does not exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from killswitch.content import policies_folder, runbooks_folder
from killswitch.incident.report.rendering import TemplateVariables
from killswitch.incident.report.runbooks import compile_all, shipped
from killswitch.incident.report.template_check import TemplateChecker
from killswitch.incident.report.template_shapes import RecordShape, shape_of
from killswitch.incident.report.templates import environment
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import load
from killswitch.policy.schema.policy import PolicyDocument

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: stop}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    loss: {signal: equity.loss_from_start, at_least: 2%, on_unknown: hold}
  stages:
    - {name: out, level: 1, any: [loss], cooldown: 6h, reset: manual, actions: [], runbook: RUNBOOK}
"""
RUNBOOK = """
apiVersion: killswitch.dev/v1
kind: Runbook
metadata: {name: mine}
spec: {template: mine.md.j2}
"""


def diagnostics_of(
    folder: Path, template: str | bytes | None, *, runbook: str = "mine", **more: str
) -> list[Diagnostic]:
    """The diagnostics of a policy whose stage names `runbook`, with its own template and the further ones in `more`."""
    (folder / "policy.yaml").write_text(POLICY.replace("RUNBOOK", runbook), encoding="utf-8")
    (folder / "runbook.yaml").write_text(RUNBOOK, encoding="utf-8")
    if isinstance(template, bytes):
        (folder / "mine.md.j2").write_bytes(template)
    elif template is not None:
        (folder / "mine.md.j2").write_text(template, encoding="utf-8")
    for name, text in more.items():
        (folder / f"{name}.md.j2").write_text(text, encoding="utf-8")
    policies, diagnostics = compile_all(load([folder]))
    assert (policies is None) == any(each.severity == "error" for each in diagnostics)
    return list(diagnostics)


MISTAKES = {
    "a name": ("ok\n{{ incidnet.id }}", "2:4 KS6103", "did you mean `incident`?"),
    "a part": ("{{ incident.scop }}", "1:13 KS6104", "did you mean `scope`?"),
    "a part of a part": ("{{ firing.lock.mod }}", "1:16 KS6104", "did you mean `mode`?"),
    "a part in a loop": ("{% for o in incident.orders %}{{ o.pric }}{% endfor %}", "1:36 KS6104", "`price`"),
    "a part of the loop": ("{% for o in incident.orders %}{{ loop.idx }}{% endfor %}", "1:39 KS6104", "index"),
    "a loop's variable after it": ("{% for o in incident.orders %}{% endfor %}\n{{ o.id }}", "2:4 KS6103", "known"),
    "a loop over no list": ("{% for o in incident.id %}{% endfor %}", "1:1 KS6104", "name a list"),
    "a part by subscript": ("{{ incident['scop'] }}", "1:14 KS6104", "`scope`"),
    "a part of the first": ("{{ (incident.firings|first).stag }}", "1:29 KS6104", "`stage`"),
    "a part of one of many": ("{{ incident.firings[0].triggers[0].nam }}", "1:36 KS6104", "`name`"),
    "a part of what was set": ("{% set f = firing %}{{ f.levl }}", "1:26 KS6104", "`level`"),
    "a part through with": ("{% with l = firing.line %}{{ l.fil }}{% endwith %}", "1:32 KS6104", "`file`"),
    "a name set in one branch": (
        "{% if incident.left %}{% set x = 1 %}{% endif %}\n{{ x }}", "2:4 KS6103", "known here",
    ),
    "a part in a macro": ("{% macro m(f) %}{{ f.nope }}{% endmacro %}{{ m(firing) }}", "1:22 KS6104", "known here"),
    "a part in a condition": ("{% if incident.lef %}{% endif %}", "1:16 KS6104", "`left`"),
    "a filter": ("{{ incident.id|safe }}", "1:16 KS6105", "known here: amount"),
    "a misspelt filter": ("{{ incident.id|cod }}", "1:16 KS6105", "`code`"),
    "a test": ("{{ incident.id is zzz }}", "1:19 KS6105", "known here"),
    "a method": ("{{ incident.id.upper() }}", "1:1 KS6106", "use a filter"),
    "a function": ("{{ range(9) }}", "1:1 KS6106", "use a filter"),
    "a dunder": ("{{ incident.__class__ }}", "1:13 KS6104", "known here"),
    "an open block": ("{% if incident.left %}", "1:1 KS6102", "correct it"),
    "a tag of nobody": ("{% fro x in y %}", "1:1 KS6102", "correct it"),
    "an included file that is not there": ('{% include "nope.md.j2" %}', "1:13 KS6101", "correct the name"),
    "a file above the folder": ('{% include "../policy.yaml" %}', "1:13 KS6101", "correct the name"),
    "a template by expression": ("{% include incident.id %}", "1:1 KS6106", "write the name in quotes"),
    "a circle": ('{% include "mine.md.j2" %}', "1:1 KS6106", "remove one of the calls"),
    "a macro that is not there": ('{% from "macros.md.j2" import whyy %}', "1:31 KS6103", "`why`"),
    "a block of the shipped one": (
        '{% extends "stage.md.j2" %}{% block what %}{{ incident.zzz }}{% endblock %}', "1:56 KS6104", "known here",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES, ids=str)
def test_an_unknown_name_in_a_template_is_reported_at_its_place(case: str, tmp_path: Path) -> None:
    """Line and column of the template, the code, the suggestion, and the document that names the template."""
    template, where, fix = MISTAKES[case]
    (found,) = diagnostics_of(tmp_path, template)
    assert f"{found.line}:{found.column} {found.code}" == where, found
    assert found.file == str(tmp_path / "mine.md.j2")
    assert fix in found.fix
    assert f"template of the Runbook `mine`, {tmp_path / 'runbook.yaml'}:5" in found.message
    assert found.source_line == template.splitlines()[found.line - 1]


SOUND = {
    "the generic one": '{% extends "stage.md.j2" %}',
    "a shipped one with a block of its own": (
        '{% extends "trim-top-risk.md.j2" %}{% block you %}1. Call.\n{{ super() }}{% endblock %}'
    ),
    "loops, branches and sets": (
        "{% set n = 0 %}{% for o in incident.orders if o.filled %}{{ loop.index }} {{ o.symbol|code }}"
        "{% else %}none{% endfor %}{% if incident.left %}{% set x = 1 %}{% else %}{% set x = 2 %}{% endif %}{{ x + n }}"
    ),
    "a macro of its own": "{% macro m(f, g) %}{{ f.stage }}{{ g }}{% endmacro %}{{ m(firing, g=1) }}",
    "a macro of ours": '{% from "macros.md.j2" import why %}{{ why(firing) }}',
    "an include": '{% include "part.md.j2" %}',
    "values that may be unknown": "{{ incident.reset.author }} {{ firing.lock.until }}",
    "a choice without else": "{{ 'closed ' ~ incident.closed_at if incident.closed_at }}",
}


@pytest.mark.parametrize("case", SOUND, ids=str)
def test_a_template_with_known_names_has_no_diagnostics(case: str, tmp_path: Path) -> None:
    """Every name of the record is accepted."""
    assert diagnostics_of(tmp_path, SOUND[case], part="{{ incident.scope }}") == []


def test_a_users_template_with_a_shipped_name_can_extend_the_shipped_one(tmp_path: Path) -> None:
    """`shipped/NAME` refers to the shipped file, not to the user's file of that name."""
    own = '{% extends "shipped/stage.md.j2" %}{% block you %}{{ incident.nope }}{% endblock %}'
    template = '{% extends "stage.md.j2" %}'
    (found,) = diagnostics_of(tmp_path, template, stage=own)
    assert (found.file, found.code) == (str(tmp_path / "stage.md.j2"), "KS6104")


@pytest.mark.parametrize(
    ("template", "message"),
    [(None, "there is no template at"), (b"\xff", "is not UTF-8"), (b" " * (1 << 16) + b"x", "is larger than 64 KiB")],
    ids=["missing", "no text", "too large"],
)
def test_an_unreadable_template_is_reported_at_the_document(
    template: bytes | None, message: str, tmp_path: Path
) -> None:
    """KS6101 is at the document's `template:`, because no line of the template can be shown."""
    (found,) = diagnostics_of(tmp_path, template)
    assert (found.code, found.file, found.line) == ("KS6101", str(tmp_path / "runbook.yaml"), 5)
    assert message in found.message


def test_a_missing_runbook_is_a_warning_with_a_suggestion(tmp_path: Path) -> None:
    """The stage still protects, so the policy set is valid."""
    (found,) = diagnostics_of(tmp_path, "x", runbook="trim-top-riks")
    assert (found.code, found.severity) == ("KS6110", "warning")
    assert "did you mean `trim-top-risk`?" in found.fix
    assert found.line == 12
    assert found.source_line[found.column - 1 :] == "trim-top-riks}"


def test_unknown_names_are_not_reported_while_a_document_is_invalid(tmp_path: Path) -> None:
    """The name may belong to the invalid document."""
    (tmp_path / "broken.yaml").write_text("apiVersion: killswitch.dev/v1\nkind: Runbook\n", encoding="utf-8")
    assert "KS6110" not in {each.code for each in diagnostics_of(tmp_path, "x", runbook="other")}


def test_every_stage_of_the_shipped_policies_has_a_shipped_runbook() -> None:
    """Without configuration, every stage fires with its own runbook."""
    documents = [each.model for each in load([policies_folder()]).documents]
    named = {
        stage.runbook for each in documents if isinstance(each, PolicyDocument) for stage in each.spec.stages
    }  # fmt: skip
    assert named - {None} <= shipped()


@pytest.mark.parametrize("name", sorted(file.name for file in runbooks_folder().glob("*.j2")))
def test_every_shipped_template_passes_the_check(name: str) -> None:
    """The check for users' templates holds for the shipped ones too."""
    problems: list[object] = []
    names = shape_of(TemplateVariables)
    assert isinstance(names, RecordShape)
    TemplateChecker(environment(), dict(names.fields), lambda *problem: problems.append(problem)).template(name)
    assert problems == []


def test_jinja2_is_imported_only_where_a_document_names_a_template(tmp_path: Path) -> None:
    """`ksctl validate` runs at every save, so it loads only what it needs."""
    (tmp_path / "policy.yaml").write_text(POLICY.replace("RUNBOOK", "trim-top-risk"), encoding="utf-8")
    program = (
        "import sys; from killswitch.cli import main; sys.argv = ['ksctl', 'validate', sys.argv[1]]\n"
        "try: main()\nfinally: print(sorted({'jinja2', 'markdown_it', 'sqlalchemy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
