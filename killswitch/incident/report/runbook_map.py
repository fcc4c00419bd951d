"""Maps each stage of a policy set to its runbook: the facts that are kept with an incident."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from killswitch.graph.wording import span
from killswitch.incident.record.document import EscalationContact, Link, Person, RunbookFacts
from killswitch.policy.loader import Document
from killswitch.policy.schema.policy import PolicyDocument
from killswitch.policy.schema.runbook import RunbookDocument


def declared_runbooks(documents: Sequence[Document]) -> dict[str, dict[str, RunbookFacts]]:
    """Return policy → stage → its runbook; stages without one are omitted."""
    known = {each.name: _facts(each, each.model) for each in documents if isinstance(each.model, RunbookDocument)}
    found = {}
    for document in documents:
        if isinstance(document.model, PolicyDocument):
            stages = [stage for stage in document.model.spec.stages if stage.runbook is not None]
            found[document.name] = {
                stage.name: known.get(name, RunbookFacts(name)) for stage in stages if (name := stage.runbook)
            }
    return found


def _facts(document: Document, model: RunbookDocument) -> RunbookFacts:
    spec = model.spec
    people = {each.name: Person(each.name, each.role, contact_text(each.reach)) for each in spec.contacts}
    steps = sorted(spec.escalation, key=lambda step: step.after)
    return RunbookFacts(
        name=document.name,
        folder=None if spec.template is None else str(Path(document.source.file).parent.resolve()),
        template=spec.template,
        contacts=tuple(people.values()),
        escalation=tuple(
            EscalationContact(span(step.after), step.contact, people[step.contact].role, people[step.contact].reach)
            for step in steps
        ),
        links=tuple(Link(each.title, each.url) for each in spec.links),
    )


def contact_text(reach: str) -> str:
    """Return how someone is reached; a reference is named and never resolved, because it may lead to a secret."""
    return f"kept in {reach}" if reach.startswith(("env:", "file:")) else reach
