"""The `Runbook` document: a template for a stage's runbook, contacts and escalation."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Literal

from killswitch.policy.schema.cross_key_checks import Breach, items, mapping, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import MistakeError, Part, Scalar
from killswitch.policy.schema.scalars import REFERENCE_FIX, Duration, Text, quoted, text

_USER = re.compile(r"://[^/\s]*@")
_SECRET_IN_QUERY = re.compile(r"(?i)[?&#;][^=\s&]*(?:secret|token|passw|key|sig)[^=\s&]*=")


def template(value: object) -> str:
    """A file in the folder of the document, or in a subfolder."""
    written = text(value)
    path = PurePosixPath(written)
    if path.is_absolute() or ".." in path.parts or "\\" in written or "\x00" in written:
        fix = "move the template next to the document and write its name, such as trim.md.j2"
        raise MistakeError("KS2109", f"{quoted(written)} is not a file in the folder of the document", fix)
    return written


def reach(value: object) -> str:
    """A phone number, an address or a reference. The message never repeats the value, which may contain a secret."""
    written = text(value)
    if _USER.search(written) or _SECRET_IN_QUERY.search(written):
        raise MistakeError("KS2106", "an address must not carry a password or a token", REFERENCE_FIX)
    return written


def link(value: object) -> str:
    """The http or https address of a page, without a secret in it."""
    written = reach(value)
    if not re.fullmatch(r"https?://\S+", written):
        raise MistakeError("KS2107", "this is not the address of a page", "write it as https://wiki.example/drawdown")
    return written


Template = Annotated[str, Scalar(template, {"type": "string", "examples": ["trim.md.j2"]})]
Reach = Annotated[
    str, Scalar(reach, {"type": "string", "examples": ["+49 30 901820", "env:DESK_PAGER"]}, is_confidential=True)
]
Page = Annotated[str, Scalar(link, {"type": "string", "pattern": r"^https?://\S+$"})]


class Contact(Part):
    """Someone who can help."""

    name: Text
    """The name, which escalation steps reference."""
    role: Text
    """The role."""
    reach: Reach
    """A phone number, an address, or env:NAME or file:PATH, which is displayed and never resolved."""


class EscalationStep(Part):
    """A step of the escalation path."""

    after: Duration
    """The time since the stage fired."""
    contact: Text
    """The name of one of the contacts."""


class LinkTo(Part):
    """A link to a page."""

    title: Text
    """The title of the page."""
    url: Page
    """The address of the page."""


class RunbookSpec(Part):
    """The runbook that the engineer on call receives when a stage fires."""

    template: Template | None = None
    """A Jinja2 template in the folder of the document. Left out: the shipped template of the same name, or the generic
    one."""
    contacts: tuple[Contact, ...] = ()
    """People who can help. Left out: none."""
    escalation: tuple[EscalationStep, ...] = ()
    """Whom to contact, and when. Left out: nobody."""
    links: tuple[LinkTo, ...] = ()
    """Links to pages. Left out: none."""


class RunbookDocument(VersionedPart):
    """A runbook: its template, contacts and escalation path."""

    kind: Literal["Runbook"]
    spec: RunbookSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """Check that escalation steps name existing contacts."""
        spec = spec_of(written)
        named = [mapping(each).get("name") for each in items(spec.get("contacts"))]
        for number, step in enumerate(items(spec.get("escalation"))):
            contact = mapping(step).get("contact")
            if isinstance(contact, str) and contact not in named:
                known = ", ".join(f"`{name}`" for name in named if isinstance(name, str)) or "none"
                at, fix = ("spec", "escalation", number, "contact"), f"write one of the contacts ({known}), or add it"
                yield Breach("KS2206", at, f"there is no contact `{contact}`", fix)
