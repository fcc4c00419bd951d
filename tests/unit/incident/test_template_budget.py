"""Templates that would never end or fill memory: refused by the check, or stopped while they render."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.incident.record.document import Incident, RunbookFacts
from killswitch.incident.report import template_budget
from killswitch.incident.report.page import LONGEST_FORMATTED
from killswitch.incident.report.rendering import runbook
from killswitch.incident.report.template_budget import LONGEST_TEXT
from killswitch.incident.report.templates import RenderingError
from tests.incidents import filled_store, whole_incident
from tests.unit.incident.test_runbook_validation import diagnostics_of


def doubling(levels: int) -> str:
    """Macros that each call the next one twice."""
    called = "".join(
        f"{{% macro m{n}() %}}{{{{ m{n + 1}() }}}}{{{{ m{n + 1}() }}}}{{% endmacro %}}" for n in range(levels)
    )
    return called + f"{{% macro m{levels}() %}}x{{% endmacro %}}{{{{ m0() }}}}"


LISTS = "{% set a = [1, 2] %}" + "".join("{% set a = [a, a] %}" for _ in range(60))
LOOPS = "".join(f"{{% for x{n} in [1,2,3,4,5,6,7,8,9,10] %}}" for n in range(12))


@pytest.mark.parametrize(
    ("template", "code", "message"),
    [
        ("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}\n{{ m() }}", "KS6106", "call each other in a circle here"),
        ("{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}", "KS6106", "circle"),
        ('{% include "mine.md.j2" %}{% include "mine.md.j2" %}', "KS6106", "call each other in a circle here"),
        ('{% extends "mine.md.j2" %}', "KS6106", "call each other in a circle here"),
        (doubling(18), "KS6180", "it takes more than 10,000 steps"),
        (LOOPS + "{% endfor %}" * 12, "KS6180", "loops are nested 5 deep; at most 4 levels are allowed"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "KS6102", "it is nested too deeply"),
        ("{{ incident" + ".a" * 5000 + " }}", "KS6102", "it is nested too deeply"),
        ("{{ " + "9" * 5000 + " }}", "KS6102", "this cannot be parsed as a template"),
        ("{{ incident }}", "KS6104", "this is a record or a list and cannot be printed"),
    ],
    ids=["itself", "each other", "include", "extends", "doubling", "loops", "brackets", "parts", "digits", "record"],
)  # fmt: skip
def test_a_template_that_would_not_end_is_refused_by_the_check(
    template: str, code: str, message: str, tmp_path: Path
) -> None:
    """With its place and code, and the check itself ends."""
    found = diagnostics_of(tmp_path, template.encode())
    assert (found[0].code, message in found[0].message) == (code, True), found[0].message


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    from killswitch.incident.incident_builder import incident_of
    from killswitch.incident.record.checklist import StartedAs
    from killswitch.incident.record.incident_decisions import find_incident

    written = filled_store(tmp_path_factory.mktemp("incident"))
    whole_incident(written)
    yield incident_of(written.store, find_incident(written.store, None), StartedAs("store.sqlite"))
    written.store.close()


def render(incident: Incident, folder: Path, template: str) -> str:
    """Render a template that was changed after its check."""
    (folder / "own.md.j2").write_text(template, encoding="utf-8")
    stage = incident.firings[0].stage
    assert stage is not None
    return runbook(incident, stage, RunbookFacts("own", str(folder), "own.md.j2")).markdown


MANY = "{% set many = [" + "1," * 5000 + "] %}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (LOOPS + "x" + "{% endfor %}" * 12, "more than 100,000 steps"),
        (MANY + "{% for a in many %}{% for b in many if false %}{% endfor %}{% endfor %}", "more than 100,000 steps"),
        (doubling(18).replace("m18() %}x", "m18() %}" + "x" * 200), "costs too much"),
        ("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{% set x = 'xxxxxxxx' %}" + "{% set x = x ~ x %}" * 40, "a text of more than 262,144 characters"),
        ("{% set x %}xxxxxxxx{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 40, "a text of more than"),
        ("{% set x = 'x' * 10**10 %}", "calculate with numbers only"),
        ("{% set x = 10 %}" + "{% set x = x * x %}" * 40, "more than 40 digits"),
        ("{{ 1.5|fixed(2000000000) }}", "a number has 0 to 20 decimals, not 2000000000"),
        (MANY + "{% set x = 'x'|fenced %}" + "{% set x = x ~ x %}" * 12 + "{{ many|join(x) }}", "a text of more than"),
        (LISTS + "{{ a }}", "a list cannot be printed: print its fields"),
        (LISTS + "{{ a|upper }}", "a list cannot be printed: print its fields"),
        (LISTS + "{% set b = [a] %}{{ b|join }}", "a list cannot be printed: print its fields"),
        (LISTS + LISTS.replace("a", "b").replace("bnd", "and") + "{{ a == b }}", "lists of lists cannot be compared"),
        (LISTS + "{{ a is eq([a]) }}", "lists of lists cannot be compared"),
        ("{% for a in [1] %}" * 30 + "{% endfor %}" * 30, "too many statically nested blocks"),
        ("{{ incident.firings }}", "cannot be printed: print its fields"),
    ],
    ids=["loops", "conditions", "doubling", "itself", "joined", "blocks", "texts times", "numbers", "decimals",
         "between", "lists", "filtered lists", "lists in lists", "compared", "tested", "python", "record"],
)  # fmt: skip
def test_a_template_that_exceeds_its_budget_is_stopped_while_it_renders(
    incident: Incident, template: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an error of the template with a message, before it uses up memory or time."""
    monkeypatch.setattr(template_budget, "MOST_STEPS", 100_000)
    with pytest.raises(RenderingError) as stopped:
        render(incident, tmp_path, template)
    assert message in str(stopped.value)


def test_a_template_that_grew_too_large_after_its_check_is_not_read(incident: Incident, tmp_path: Path) -> None:
    """Nor is an included template."""
    (tmp_path / "large.md.j2").write_bytes(b" " * (1 << 17))
    with pytest.raises(RenderingError, match=r"large.md.j2 is larger than 64 KiB"):
        render(incident, tmp_path, '{% include "large.md.j2" %}')


def test_a_realistic_report_is_far_from_the_limits(incident: Incident, tmp_path: Path) -> None:
    """Loops in macros in loops, concatenated texts, compared values, the first and the last of a list."""
    text = render(
        incident,
        tmp_path,
        "{% macro row(each) %}{% for t in each.triggers %}{{ t.name ~ '!' }}{% endfor %}{% endmacro %}"
        "{% for each in incident.firings if each.level > 0 %}{{ loop.index }}/{{ loop.length }} {{ row(each) }}\n"
        "{% endfor %}"
        "{{ (incident.firings|first).stage|upper }} {{ (incident.firings|last).level in [1, 2, 3] }} "
        "{{ [1, 2]|join('+') }} {{ 'long ' ~ ('x' ~ 1.5|fixed(2)) }} {{ 3 * 4 - 2 }} "
        "{{ incident.firings|length is gt(0) }}",
    )
    stages = [each.stage for each in incident.firings]
    assert f"{len(stages)}/{len(stages)} " in text
    assert f"{str(stages[0]).upper()} yes 1+2 long x1.50 10 yes" in text
    assert len(text) < LONGEST_TEXT


def test_a_long_page_of_a_users_template_is_shown_as_plain_text(incident: Incident, tmp_path: Path) -> None:
    """Parsing Markdown takes time with the square of its length, beside the ticks; a shorter page is parsed."""
    (tmp_path / "own.md.j2").write_text("# A heading <b>\n" + "[" * LONGEST_FORMATTED, encoding="utf-8")
    stage = incident.firings[0].stage
    page = runbook(incident, stage, RunbookFacts("own", str(tmp_path), "own.md.j2")).html
    assert "<title>A heading &lt;b&gt;</title>" in page
    assert f"<pre># A heading &lt;b&gt;\n{'[' * LONGEST_FORMATTED}</pre>" in page
    (tmp_path / "own.md.j2").write_text("# A heading\n" + "[" * 10, encoding="utf-8")
    page = runbook(incident, stage, RunbookFacts("own", str(tmp_path), "own.md.j2")).html
    assert "<h1>A heading</h1>" in page
