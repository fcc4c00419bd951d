"""Pages of the codes of runbooks: their documents (KS2), and their templates (KS61)."""

from __future__ import annotations

from killswitch.policy.diagnostics.problem import Page

PAGES = (
    Page(
        "KS2109",
        "a template outside the folder of its document",
        "A runbook's template lies beside the document that names it, or below. A template can include and extend "
        "files of that folder and the shipped ones, and read no other file.",
        "spec: {template: ../../etc/passwd}",
        "Put the template beside the document and write its name.",
    ),
    Page(
        "KS2206",
        "escalation names no contact",
        "A step of the escalation path names someone who is not among the document's contacts, so whoever is on call "
        "would not know how to reach them.",
        "contacts: [{name: desk, role: risk, reach: +49 30 901820}]\nescalation: [{after: 15m, contact: dsek}]",
        "Write the contact's name as it stands under `contacts`, or add it there.",
    ),
    Page(
        "KS6101",
        "the template cannot be read",
        "A Runbook names a template that is not there, may not be read, is not UTF-8 or is far too large.",
        "spec: {template: trimm.md.j2}",
        "Correct the name: it is relative to the folder of the document.",
    ),
    Page(
        "KS6102",
        "the template is not Jinja2",
        "The template cannot be parsed: a block is not closed, or a tag is not one of Jinja2's.",
        "{% if incident.left %} something is open",
        "Correct the line that the message names. Values stand in `{{ }}`, statements in `{% %}`.",
    ),
    Page(
        "KS6103",
        "the template names something that is not there",
        "A template sees `incident` and `firing`, what it sets itself, its loops' variables and its macros. Another "
        "name would end the rendering in the middle of an incident. A variable that is set in one branch of an `if` "
        "only is not there in the other.",
        "{{ incidnet.scope }}",
        "Correct the name, or set the variable before it is used.",
    ),
    Page(
        "KS6104",
        "what the template asks for has no such part",
        "The record of an incident has a declared shape, and the template reads a part that it does not have. "
        "`ksctl report --output json` shows a whole record.",
        "{{ incident.symbol }}",
        "Correct the name of the part. The message lists those that there are.",
    ),
    Page(
        "KS6105",
        "there is no such filter or test",
        "Templates have a short list of filters and tests of their own, and none beside it: what is not on the list "
        "could read files, run for ever or let a value through unescaped.",
        "{{ incident.scope|safe }}",
        "Use one of those that the message lists.",
    ),
    Page(
        "KS6106",
        "a template may not do that",
        "A template shows values. It calls no method of a value, has no extensions, and names the templates that it "
        "includes or extends in plain text.",
        "{{ incident.scope.upper() }}",
        "Write it with a filter or a macro, or name the template in quotes.",
    ),
    Page(
        "KS6110",
        "there is no such runbook",
        "A stage names a runbook that is neither a Runbook document nor a shipped template. The stage fires all the "
        "same, and the generic runbook is rendered: without its own words, contacts and escalation path.",
        "runbook: trim-top-riks",
        "Correct the name, or add a Runbook document of this name.",
    ),
    Page(
        "KS6180",
        "a template is too much work",
        "Loops are more than four deep, or macros call macros so often that the template comes to more than 10,000 "
        "steps before it is shown anything. It would be rendered beside a live run, when every second counts. What "
        "only a large incident makes too much is stopped while it is rendered, and is a problem then.",
        "{% macro a() %}{{ b() }}{{ b() }}{% endmacro %}",
        "Take loops and calls out of one another; what the shipped templates show can be had from their blocks.",
    ),
)
