"""What a `Runbook` document holds: a template for a stage's runbook, and who is to be reached."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Literal

from killswitch.policy.schema.cross_key_checks import Breach, items, mapping, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import MistakeError, Part, Scalar
from killswitch.policy.schema.scalars import Duration, Text, spelled, text

_USER = re.compile(r"://[^/\s]*@")
_SECRET_IN_QUERY = re.compile(r"(?i)[?&#;][^=\s&]*(?:secret|token|passw|key|sig)[^=\s&]*=")


def template(value: object) -> str:
    """A file beside the document, or below its folder."""
    written = text(value)
    path = PurePosixPath(written)
    if path.is_absolute() or ".." in path.parts or "\\" in written or "\x00" in written:
        raise MistakeError(
            "KS2109", f"{spelled(written)} is not a file in the folder of the document",
            "put the template beside the document, and write its name, such as trim.md.j2",
        )  # fmt: skip
    return written


def reach(value: object) -> str:
    """A number, an address or a reference. The message never repeats what was written: it may hold a secret."""
    written = text(value)
    if _USER.search(written) or _SECRET_IN_QUERY.search(written):
        raise MistakeError(
            "KS2106", "an address must not carry a password or a token",
            "write env:NAME or file:PATH, and change the secret if it was ever real: it has been in a file",
        )  # fmt: skip
    return written


def link(value: object) -> str:
    """A page to open: http or https, without a secret in it."""
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
    """Who; escalation refers to it."""
    role: Text
    """What for."""
    reach: Reach
    """How: a number, an address, or env:NAME or file:PATH, which is named and never resolved."""


class EscalationStep(Part):
    """Whom to turn to when it goes on."""

    after: Duration
    """How long after the stage has fired."""
    contact: Text
    """One of the contacts, by name."""


class LinkTo(Part):
    """A page to open."""

    title: Text
    """What is to be found there."""
    url: Page
    """Its address."""


class RunbookSpec(Part):
    """What the engineer on call is given when a stage fires."""

    template: Template | None = None
    """A Jinja2 template beside the document. Left out: the shipped one of the same name, or the generic one."""
    contacts: tuple[Contact, ...] = ()
    """Who can help. Left out: nobody."""
    escalation: tuple[EscalationStep, ...] = ()
    """Whom to turn to, and when. Left out: nobody."""
    links: tuple[LinkTo, ...] = ()
    """Pages to open. Left out: none."""


class RunbookDocument(VersionedPart):
    """A runbook: its template, contacts and escalation path."""

    kind: Literal["Runbook"]
    spec: RunbookSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """Escalation names contacts that are there."""
        spec = spec_of(written)
        named = [mapping(each).get("name") for each in items(spec.get("contacts"))]
        for number, step in enumerate(items(spec.get("escalation"))):
            contact = mapping(step).get("contact")
            if isinstance(contact, str) and contact not in named:
                known = ", ".join(f"`{name}`" for name in named if isinstance(name, str)) or "there is none"
                yield Breach(
                    "KS2206", ("spec", "escalation", number, "contact"),
                    f"there is no contact `{contact}`", f"write one of the contacts ({known}), or add it",
                )  # fmt: skip
