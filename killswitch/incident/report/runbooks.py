"""The runbooks of a policy set: the runbook of each stage, and checks of their names and templates.

`ksctl validate` runs at every save, so Jinja2 is imported only where a document has a template of its own, and the
records of incidents only where runbooks are kept with one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from killswitch.content import runbooks_folder
from killswitch.graph.compile import compile_loaded
from killswitch.graph.freezing import freeze
from killswitch.graph.nodes import PolicySet
from killswitch.policy.diagnostics.diagnostic import Diagnostic, has_errors, in_order
from killswitch.policy.loader import Document, LoadedDocuments
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.policy import PolicyDocument
from killswitch.policy.schema.runbook import RunbookDocument

if TYPE_CHECKING:
    from killswitch.incident.record.document import RunbookFacts

SUFFIX = ".md.j2"
NOT_RUNBOOKS = frozenset({"report", "stage"})
HERE = Path()
LARGEST = 64 << 10
"""The largest template in bytes. Templates are written and read by people."""


def compile_all(
    loaded: LoadedDocuments, commit: str | None = None, *, variant: str | None = None, below: Path = HERE
) -> tuple[PolicySet | None, tuple[Diagnostic, ...]]:
    """Compile as `compile_loaded` and check the runbooks; no policy set where anything is wrong.

    `below`: where the folder of documents in memory (`load_texts`) is on the disk, for their templates.
    """
    policies, diagnostics = compile_loaded(loaded, commit, variant=variant)
    found = in_order((*diagnostics, *runbook_problems(loaded, below)))
    return (None if has_errors(found) else policies), found


def shipped() -> frozenset[str]:
    """Return the names of the shipped runbooks."""
    names = (file.name.removesuffix(SUFFIX) for file in runbooks_folder().glob(f"*{SUFFIX}"))
    return frozenset(names) - NOT_RUNBOOKS


def runbook_problems(loaded: LoadedDocuments, below: Path = HERE) -> tuple[Diagnostic, ...]:
    """Return all problems in the runbooks of the documents."""
    found = [*_names(loaded), *_without_contacts(loaded)]
    for document in loaded.documents:
        if isinstance(document.model, RunbookDocument) and document.model.spec.template is not None:
            found += _template(document, document.model.spec.template, below)
    return tuple(found)


def _names(loaded: LoadedDocuments) -> Iterator[Diagnostic]:
    """Yield stages whose runbook is neither declared nor shipped; none where a document could not be read."""
    stages = [
        (policy.source, number, stage.runbook)
        for policy in loaded.documents
        if isinstance(policy.model, PolicyDocument)
        for number, stage in enumerate(policy.model.spec.stages)
        if stage.runbook is not None
    ]
    known = {each.name for each in loaded.documents if each.kind == "Runbook"}
    known |= {each.name for each in loaded.faulty if each.kind == "Runbook" and each.name is not None}
    is_incomplete = loaded.has_unidentified or any(it.kind == "Runbook" and it.name is None for it in loaded.faulty)
    if is_incomplete or {name for _, _, name in stages} <= known:
        return
    known |= shipped()
    for source, number, name in stages:
        if name not in known:
            yield source.diagnostic(
                "KS6110", ("spec", "stages", number, "runbook"), f"there is no runbook `{name}`",
                _instead(name, known), severity="warning",
            )  # fmt: skip


def _without_contacts(loaded: LoadedDocuments) -> Iterator[Diagnostic]:
    """Yield, once for each policy of a set that acts, the first stage that notifies and whose runbook names nobody."""
    accounts = [each.model for each in loaded.documents if isinstance(each.model, AccountDocument)]
    is_incomplete = loaded.has_unidentified or bool(loaded.faulty)
    if is_incomplete or not any(each.spec.execution == "live" for each in accounts):
        return
    named = {each.name for each in loaded.documents if isinstance(each.model, RunbookDocument) and
             each.model.spec.contacts}  # fmt: skip
    for policy in loaded.documents:
        if not isinstance(policy.model, PolicyDocument):
            continue
        for number, stage in enumerate(policy.model.spec.stages):
            if stage.notify and stage.runbook not in named:
                message = f"nobody is named who can be called when `{stage.name}` fires"
                fix = f"add `contacts` to a Runbook document named `{stage.runbook or stage.name}`" + (
                    "" if stage.runbook else f", and `runbook: {stage.name}` to the stage"
                )
                yield policy.source.diagnostic(
                    "KS5071", ("spec", "stages", number, "name"), message, fix, severity="warning"
                )
                break


def _instead(name: str, known: set[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, sorted(known), n=1)
    add = f"add a Runbook document named `{name}`"
    return f"did you mean `{near[0]}`? Else {add}" if near else f"{add}, or name one of {', '.join(sorted(known))}"


def _template(document: Document, name: str, below: Path) -> Sequence[Diagnostic]:
    """Return the problems in a document's own template."""
    folder = Path(document.source.file).parent
    trouble = _unreadable(below / folder / name)
    if trouble is not None:
        trouble = trouble.replace(str(below / folder), str(folder))
        fix = f"put it at {folder / name}, or correct the name"
        return [document.source.diagnostic("KS6101", ("spec", "template"), trouble, fix)]
    from killswitch.incident.report.template_check import template_diagnostics

    place = document.source.place(("spec", "template"))
    by = f"template of the Runbook `{document.name}`, {place.file}:{place.line}"
    found = template_diagnostics(below / folder, name, by)
    return [replace(each, file=each.file.replace(str(below / folder), str(folder))) for each in found]


def _unreadable(file: Path) -> str | None:
    """Return why a template cannot be read; None if it can."""
    try:
        if not file.is_file():
            return f"there is no template at {file}"
        if file.stat().st_size > LARGEST:
            return f"{file} is larger than {LARGEST >> 10} KiB"
        file.read_text(encoding="utf-8")
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return f"{file} is not UTF-8"
    return None


def declared_runbooks(documents: Sequence[Document], below: Path = HERE) -> dict[str, dict[str, RunbookFacts]]:
    """Return policy → stage → its runbook; stages without one are omitted. `below`: as of `compile_all`."""
    from killswitch.incident.record.document import RunbookFacts

    known = {
        each.name: _runbook_facts(each, each.model, below)
        for each in documents
        if isinstance(each.model, RunbookDocument)
    }
    found = {}
    for document in documents:
        if isinstance(document.model, PolicyDocument):
            stages = [stage for stage in document.model.spec.stages if stage.runbook is not None]
            found[document.name] = {
                stage.name: known.get(name, RunbookFacts(name)) for stage in stages if (name := stage.runbook)
            }
    return found


def _runbook_facts(document: Document, model: RunbookDocument, below: Path) -> RunbookFacts:
    from killswitch.incident.record.document import EscalationContact, Person, RunbookFacts

    spec = model.spec
    people = {each.name: freeze(each, Person) for each in spec.contacts}
    steps = sorted(spec.escalation, key=lambda step: step.after)
    return freeze(
        spec, RunbookFacts,
        name=document.name,
        folder=None if spec.template is None else str((below / document.source.file).parent.resolve()),
        contacts=tuple(people.values()),
        escalation=tuple(
            freeze(step, EscalationContact, role=people[step.contact].role, reach=people[step.contact].reach)
            for step in steps
        ),
    )  # fmt: skip
