"""What a user's template may contain: everything that could repeat, grow or reach further is refused."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from jinja2 import nodes
from msgspec.structs import replace

from killswitch.incident.record.document import Incident, RunbookFacts
from killswitch.incident.report.rendering import LONGEST_FORMATTED, runbook
from killswitch.incident.report.templates import LARGEST, LONGEST_TEXT, RenderingError
from tests.incidents import filled_store, whole_incident
from tests.unit.incident.test_runbook_validation import diagnostics_of

ORDERS = "{% for o in incident.orders %}"
END = "{% endfor %}"
DOUBLING = "".join(f"{{% macro m{n}() %}}{{{{ m{n + 1}() }}}}{{{{ m{n + 1}() }}}}{{% endmacro %}}" for n in range(18))

HOSTILE = {
    "a macro that calls itself": ("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}", "KS6106", "macro"),
    "macros that double": (DOUBLING + "{{ m0() }}", "KS6106", "macro"),
    "a call block": ("{% call m() %}x{% endcall %}", "KS6106", "macro"),
    "an include of itself": ('{% include "own.md.j2" %}{% include "own.md.j2" %}', "KS6106", "include"),
    "an include by expression": ("{% include incident.id %}", "KS6106", "include"),
    "a shipped part": ('{% include "shipped/parts/why.md.j2" %}', "KS6106", "include"),
    "an import": ('{% import "stage.md.j2" as shared %}', "KS6106", "import"),
    "an import of a name": ('{% from "stage.md.j2" import why %}', "KS6106", "import"),
    "extends on a condition": ('{% if incident.left %}{% extends "stage.md.j2" %}{% endif %}', "KS6106", "extends"),
    "extends by expression": ("{% extends incident.id %}", "KS6106", "must be a string"),
    "extends twice": ('{% extends "stage.md.j2" %}{% extends "stage.md.j2" %}', "KS6106", "second `extends`"),
    "a variable": ("{% set x = incident.id %}", "KS6106", "set a variable"),
    "a text that doubles": ("{% set x = 'xx' %}" + "{% set x = x ~ x %}" * 40, "KS6106", "set a variable"),
    "a block of text that doubles": ("{% set x %}xx{% endset %}", "KS6106", "set a variable"),
    "with": ("{% with x = incident.id %}{{ x }}{% endwith %}", "KS6106", "set a variable"),
    "a namespace": ("{% set n = namespace(x=1) %}", "KS6106", "set a variable"),
    "a part of a namespace": ("{% set n.x = 1 %}", "KS6106", "set a variable"),
    "do": ("{% do incident.orders.append(1) %}", "KS6102", "unknown tag 'do'"),
    "a text times a billion": ("{{ 'x' * 10**10 }}", "KS6106", "calculate"),
    "a power": ("{{ 9 ** 9 ** 9 }}", "KS6106", "calculate"),
    "a number of the record times": ("{{ firing.level * 10**9 }}", "KS6106", "calculate"),
    "format by %": ("{{ '%1000000000d' % firing.level }}", "KS6106", "calculate"),
    "a sum": ("{{ firing.level + 1 }}", "KS6106", "calculate"),
    "minus a field": ("{{ -firing.level }}", "KS6106", "calculate"),
    "range": ("{% for i in range(1000000000) %}x{% endfor %}", "KS6106", "call a function"),
    "a call in the condition of a loop": ("{% for o in incident.orders if range(9) %}{% endfor %}", "KS6106", "call"),
    "a call in the else of a loop": (ORDERS + "{% else %}{{ range(9) }}" + END, "KS6106", "call a function"),
    "a method": ("{{ incident.id.center(1000000000) }}", "KS6106", "call a function"),
    "format": ("{{ '{:>1000000000}'.format(1) }}", "KS6106", "call a function"),
    "lipsum": ("{{ lipsum(1000000) }}", "KS6106", "call a function"),
    "cycler": ("{{ cycler('a') }}", "KS6106", "call a function"),
    "a method of the loop": (ORDERS + "{{ loop.cycle('a', 'b') }}" + END, "KS6106", "call a function"),
    "a loop that calls itself": (
        "{% for o in incident.orders recursive %}{{ loop(incident.orders) }}{% endfor %}", "KS6106", "call itself",
    ),
    "self": ("{% block a %}{{ self.a() }}{% endblock %}", "KS6106", "call a function"),
    "self by name": ("{{ self }}", "KS6103", "no `self`"),
    "super twice": (
        '{% extends "stage.md.j2" %}{% block you %}{{ super() }}{{ super() }}{% endblock %}',
        "KS6106", "`super()` once",
    ),
    "super in a loop": (
        '{% extends "stage.md.j2" %}{% block you %}' + ORDERS + "{{ super() }}" + END + "{% endblock %}",
        "KS6106", "`super()` once",
    ),
    "super outside of a block": ("{{ super() }}", "KS6106", "`super()` once"),
    "super after a block": ("{% block a %}x{% endblock %}{{ super() }}", "KS6106", "`super()` once"),
    "super filtered": (
        '{% extends "stage.md.j2" %}{% block you %}{{ super()|upper }}{% endblock %}',
        "KS6106", "a filter formats a field",
    ),
    "a block in a loop": (ORDERS + "{% block a %}x{% endblock %}" + END, "KS6106", "block"),
    "a block in a block": ("{% block a %}{% block b %}{% endblock %}{% endblock %}", "KS6106", "block"),
    "a block that is filtered": ("{% filter upper %}x{% endfilter %}", "KS6106", "FilterBlock"),
    "escaping switched off": ("{% autoescape false %}x{% endautoescape %}", "KS6106", "switch escaping"),
    "a list over itself": (ORDERS + "{% for p in incident.orders %}x{% endfor %}" + END, "KS6180", "list of its item"),
    "a list that is never shown": (
        ORDERS + "{% for p in incident.orders if false %}{% endfor %}" + END, "KS6180", "list of its item",
    ),
    "another list in a loop": (
        "{% for f in incident.firings %}{% for p in incident.orders if p.decision == f.decision %}x{% endfor %}" + END,
        "KS6180", "list of its item",
    ),
    "the list of an outer item": (
        "{% for d in decisions %}{% for o in d.orders %}{% for p in d.orders %}x{% endfor %}{% endfor %}{% endfor %}",
        "KS6180", "list of its item",
    ),
    "the list of the firing in a loop": (
        ORDERS + "{% for t in firing.triggers %}x{% endfor %}" + END, "KS6180", "list of its item",
    ),
    "a list that is joined in a loop": (ORDERS + "{{ incident.swept|join }}" + END, "KS6180", "list of its item"),
    "a list that is chosen in a loop": (
        ORDERS + "{% for p in incident.orders or incident.orders %}x{% endfor %}" + END, "KS6180", "list of its item",
    ),
    "a loop over a written list": ("{% for x in [1, 2, 3] %}x{% endfor %}", "KS6106", "make a list"),
    "a loop over a text": ("{% for x in incident.id %}x{% endfor %}", "KS6104", "not a list"),
    "a loop over two": ("{% for a, b in incident.orders %}x{% endfor %}", "KS6106", "one variable"),
    "much in a loop": (ORDERS + "{% if o.text|upper %}{% endif %}" * 120 + END, "KS6180", "more than 300 parts"),
    "many loops": ((ORDERS + END) * 301, "KS6180", "more than 300 parts"),
    "long texts in a loop": (
        ORDERS + "{% if '" + "x" * 30_000 + "' in o.text %}{% endif %}" + END, "KS6180", "more than 300 parts",
    ),
    "a formatted text that is not shown": (
        ORDERS + "{% if o.text|fenced %}{% endif %}" + END, "KS6106", "a condition compares fields",
    ),
    "a formatted text in a choice": ("{{ incident.id|code and '' }}", "KS6106", "a condition compares fields"),
    "joined texts that are not shown": (
        "{{ '' if incident.title ~ incident.title }}", "KS6106", "a condition compares fields",
    ),
    "filters in a row": ("{{ incident.id" + "|fenced" * 4 + " }}", "KS6106", "at most 3 follow"),
    "a filtered text of the template": ("{{ 'xxxx'|upper }}", "KS6106", "a filter formats a field"),
    "a filtered joined text": ("{{ (incident.id ~ 'x')|upper }}", "KS6106", "a filter formats a field"),
    "a long text between": ("{{ incident.swept|join('" + "x" * 100 + "') }}", "KS6106", "at most 64 characters"),
    "a text of the record between": ("{{ incident.swept|join(incident.title) }}", "KS6106", "at most 64 characters"),
    "unpacked arguments": ("{{ incident.id|fixed(*incident.swept) }}", "KS6106", "unpack"),
    "arguments of trim": ("{{ incident.id|trim('x') }}", "KS6106", "no arguments"),
    "a slice": ("{{ incident.orders[0:2]|length }}", "KS6106", "brackets read one item"),
    "a field in brackets": ("{{ incident['id'] }}", "KS6106", "brackets read one item"),
    "an item by expression": ("{{ incident.orders[firing.level].symbol }}", "KS6106", "brackets read one item"),
    "a dunder": ("{{ incident.__class__ }}", "KS6104", "no field `__class__`"),
    "a dunder of a text": ("{{ incident.id.__class__ }}", "KS6104", "no field `__class__`"),
    "a field of a function": ("{{ super.__globals__ }}", "KS6103", "no `super`"),
    "a record as text": ("{{ incident }}", "KS6104", "cannot be printed"),
    "a list as text": ("{{ incident.orders }}", "KS6104", "cannot be printed"),
    "a list as filtered text": ("{{ incident.orders|upper }}", "KS6104", "formats a plain value"),
    "records joined": ("{{ incident.orders|join }}", "KS6104", "formats a list of plain values"),
    "a list in a text": ("{{ 'x' ~ incident.orders }}", "KS6104", "cannot be compared or joined"),
    "lists compared": ("{% if incident.orders == incident.orders %}{% endif %}", "KS6104", "cannot be compared"),
    "lists tested": ("{% if incident.orders is eq(incident.orders) %}{% endif %}", "KS6104", "cannot be compared"),
    "a record or a text": ("{{ (incident.orders or 'none')|length }}", "KS6106", "a filter formats a field"),
    "a choice of both": ("{{ incident.orders if incident.left else 'none' }}", "KS6104", "cannot be printed"),
    "a dictionary": ("{{ {'a': incident.id} }}", "KS6106", "make a list"),
    "brackets": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "KS6102", "nested too deeply"),
    "branches": ("{% if 1 %}" * 200 + "{% endif %}" * 200, "KS6102", "nested too deeply"),
    "fields of fields": ("{{ incident" + ".a" * 5000 + " }}", "KS6102", "nested too deeply"),
    "digits": ("{{ " + "9" * 5000 + " }}", "KS6102", "cannot be parsed"),
} | {
    f"the filter {name}": (f"{{{{ incident.title|{name} }}}}", "KS6105", "there is no filter")
    for name in (
        "center(1000000000)", "format", "indent(1000000000)", "replace('', 'x')", "wordwrap(1)", "batch(1)",
        "map('upper')", "attr('__class__')", "safe", "list", "tojson", "pprint", "sum", "groupby('x')", "select",
        "sort", "urlize", "xmlattr", "random", "slice(9)", "default('x')", "truncate", "dictsort", "escape", "e",
        "string", "round",
    )
}  # fmt: skip


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


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_a_hostile_template_is_refused_by_the_check_and_at_each_rendering(
    case: str, incident: Incident, tmp_path: Path
) -> None:
    """With file, line, code, cause and way out; also where the template was changed after the check."""
    template, code, message = HOSTILE[case]
    diagnostics = diagnostics_of(tmp_path, f"first line\n{template}")
    assert [found for found in diagnostics if found.code == code and message in found.message], diagnostics
    assert {found.file for found in diagnostics} == {str(tmp_path / "mine.md.j2")}
    assert all(found.fix for found in diagnostics)
    with pytest.raises(RenderingError) as refused:
        render(incident, tmp_path, f"first line\n{template}")
    if code != "KS6102":  # what Jinja2 cannot parse has no code at rendering
        assert f"{tmp_path / 'own.md.j2'}:2: {code}: " in str(refused.value)
        assert message in str(refused.value)


def test_every_part_of_the_language_that_is_not_listed_is_refused() -> None:
    """What an extension or a new version of Jinja2 adds has no rule."""
    from killswitch.incident.report.template_rules import problems_of
    from killswitch.incident.report.templates import TemplateVariables

    tree = nodes.Template([nodes.Break(lineno=1)], lineno=1)
    (found,) = problems_of(tree, TemplateVariables, is_shipped=True)
    assert (found.code, found.message) == ("KS6106", "a template cannot use Break")


def test_a_template_shows_filters_branches_and_loops(incident: Incident, tmp_path: Path) -> None:
    """Everything that is left of the language, in one template, with the values of the incident."""
    text = render(
        incident,
        tmp_path,
        "{% for d in decisions if d.firing.level > 0 %}{{ loop.index }}/{{ loop.length }} {{ d.firing.stage|upper }}"
        "{% for t in d.firing.triggers %} {{ t.name ~ '!' }}{% else %} none{% endfor %}"
        " {{ d.orders|length }} orders{{ ',' if not loop.last }}{% endfor %}\n\n"
        "{{ (incident.firings|first).stage }} {{ incident.firings[0].level in [1, 2, 3] }}"
        " {{ incident.swept|join('+') }}"
        "{% if firing.level < -1 or firing.line is none %}x{% elif firing.level is gt(0) %}y{% endif %}",
    )
    firings = [each for each in incident.firings if each.level > 0]
    first = text.splitlines()[0].split(",")[0]
    orders = sum(order.decision == firings[0].decision for order in incident.orders)
    names = " ".join(f"{trigger.name}!" for trigger in firings[0].triggers) or "none"
    assert first == f"1/{len(firings)} {firings[0].stage.upper()} {names} {orders} orders"
    assert text.splitlines()[1] == f"{incident.firings[0].stage} yes y"


def test_the_orders_of_all_decisions_are_those_of_the_incident(incident: Incident, tmp_path: Path) -> None:
    """`decisions` divides the lists by the decision, so that a loop in a loop never repeats an item."""
    text = render(
        incident, tmp_path, "{% for d in decisions %}{% for o in d.orders %}{{ o.number }} {% endfor %}{% endfor %}"
    )
    assert sorted(map(int, text.split())) == sorted(order.number for order in incident.orders)


def test_the_page_of_a_users_template_has_a_maximum_length(incident: Incident, tmp_path: Path) -> None:
    """It is stopped while it grows, not when it is whole; a template within it is rendered."""
    many = replace(incident, remarks=("r" * 100,) * 10_000)
    loop = "{% for each in incident.remarks %}" + "x" * 1000 + "{% endfor %}"
    with pytest.raises(RenderingError, match=r"own.md.j2: its page has more than 262,144 characters"):
        render(many, tmp_path, loop)
    assert len(render(incident, tmp_path, "x" * 50_000)) == 50_000 < LONGEST_TEXT


def test_a_value_that_cannot_be_formatted_stops_the_page(incident: Incident, tmp_path: Path) -> None:
    """A number that is short only until it is written out, and a text without end, fill no memory."""
    damaged = replace(incident, money=replace(incident.money, cost=Decimal("1e999999999")), title="x" * 100_000)
    for template in (
        "{{ incident.money.cost|money }}",
        "{{ incident.money.cost }}",
        "{{ incident.money.cost|amount }}",
    ):
        with pytest.raises(RenderingError, match=r"own.md.j2: a number has more than 10,000 digits"):
            render(damaged, tmp_path, template)
    with pytest.raises(RenderingError, match=r"own.md.j2: a value has more than 65,536 characters"):
        render(damaged, tmp_path, "{{ incident.title }}")


def test_a_template_that_grew_too_large_after_its_check_is_not_read(incident: Incident, tmp_path: Path) -> None:
    """Nor is one that it extends."""
    (tmp_path / "large.md.j2").write_bytes(b" " * (LARGEST + 1))
    with pytest.raises(RenderingError, match=r"large.md.j2 is larger than 64 KiB"):
        render(incident, tmp_path, '{% extends "large.md.j2" %}')


def test_templates_that_extend_each_other_in_a_circle_are_refused(incident: Incident, tmp_path: Path) -> None:
    """The check names the place; a rendering ends with an error."""
    (found,) = diagnostics_of(tmp_path, '{% extends "other.md.j2" %}', other='x\n{% extends "mine.md.j2" %}')
    assert (found.file, found.line, found.code) == (str(tmp_path / "other.md.j2"), 2, "KS6106")
    with pytest.raises(RenderingError, match="recursion"):
        render(incident, tmp_path, '{% extends "own.md.j2" %}')


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
