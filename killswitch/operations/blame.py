"""Who set a threshold: the change that gave a trigger its present text, found by comparing the documents of each set.

What the documents say is compared, not their lines: a file that was moved, renamed or formatted changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from functools import lru_cache
from hashlib import sha256
from typing import Final

from msgspec import Struct

from killswitch.graph.compile import canonical
from killswitch.model.applied_set import PolicyFile, PolicyOrigin
from killswitch.model.legible import legible, one_line
from killswitch.policy.kinds import TESTS
from killswitch.policy.loader import Document, load_texts
from killswitch.policy.schema.part import Part
from killswitch.policy.schema.policy import PolicyDocument
from killswitch.policy.yaml.parser import plain_value
from killswitch.render.document import Facts, Page
from killswitch.render.formats import instant

BLAME_FORMAT: Final = "killswitch.blame/v1"
SAID_ELSEWHERE: Final = {"formerly"}
"""Keys of a trigger that say nothing of when it is true."""


class SetVersion(Struct, frozen=True):
    """A policy set as it once was. `at`: since when; None for files that are not committed.

    `is_signed`: whether the commit carries a signature, which nobody has verified; None where there is no commit.
    """

    at: datetime | None
    origin: PolicyOrigin
    files: tuple[PolicyFile, ...]
    is_signed: bool | None = None


class WrittenTrigger(Struct, frozen=True):
    """A trigger as written: its keys, with what the selected variant of the policy changes in it.

    `digest`: of what they mean, so that another spelling or layout is the same.
    """

    policy: str
    trigger: str
    keys: dict[str, str]
    digest: str


class Blame(Struct, frozen=True, kw_only=True):
    """The change that gave a trigger its present text. `before`: what it was until then; None where it was not there.

    `is_oldest`: whether the history begins with it, so that it may be older. `unread`: commits in between that do not
    compile: the change may be one of them.
    """

    format: str = BLAME_FORMAT
    now: WrittenTrigger
    at: datetime | None
    origin: PolicyOrigin
    is_signed: bool | None
    before: WrittenTrigger | None
    is_oldest: bool
    unread: tuple[str, ...] = ()


class UnknownTriggerError(Exception):
    """The newest set has no such policy or trigger; the message names those that are near."""


def blame(policy: str, trigger: str, versions: Iterable[SetVersion]) -> Blame:
    """The newest change of a trigger's text. `versions`: newest first; the first one is in force.

    UnknownTriggerError if the newest set does not have the trigger, or cannot be read.
    """
    found = iter(versions)
    newest = next(found, None)
    if newest is None:
        raise UnknownTriggerError("there is no policy set to look at")
    now = _in_newest(policy, trigger, newest)
    since, unread, doubtful = newest, [], list[str]()
    names = _earlier_names(now, newest)
    before: WrittenTrigger | None = None
    is_oldest = True
    for version in found:
        policies = _policies_in(version.files)
        if policies is None:
            doubtful.append(version.origin.commit or version.origin.source)
            continue
        before = next((text for name in names if (text := _text(policies, *name)) is not None), None)
        if before is None or before.digest != now.digest:
            is_oldest, unread = False, doubtful
            break
        since, doubtful, names = version, [], _earlier_names(before, version)
        before = None
    else:
        unread = doubtful
    return Blame(
        now=now, at=since.at, origin=since.origin, is_signed=since.is_signed, before=before, is_oldest=is_oldest,
        unread=tuple(unread),
    )  # fmt: skip


def _in_newest(policy: str, trigger: str, newest: SetVersion) -> WrittenTrigger:
    policies = _policies_in(newest.files)
    if policies is None:
        raise UnknownTriggerError("the policies in force cannot be read: `ksctl validate` says why")
    if policy not in policies:
        raise UnknownTriggerError(f"no policy is called {policy}{_near(policy, policies)}")
    triggers = _triggers(policies[policy])
    if trigger not in triggers:
        raise UnknownTriggerError(f"the policy {policy} has no trigger {trigger}{_near(trigger, triggers)}")
    found = _text(policies, policy, trigger)
    assert found is not None  # both names were looked up
    return found


def _near(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = get_close_matches(name, names, 1)
    return f", did you mean {near[0]}?" if near else f". There is: {', '.join(names) or 'nothing'}"


@lru_cache(maxsize=4)
def _policies_in(files: tuple[PolicyFile, ...]) -> Mapping[str, Document] | None:
    """The policies of the files by name; None if a document cannot be read."""
    loaded = load_texts(files, without=TESTS)
    if loaded.has_unidentified or loaded.faulty:
        return None
    return {each.name: each for each in loaded.documents if isinstance(each.model, PolicyDocument)}


def _triggers(document: Document) -> Mapping[str, Part]:
    model = document.model
    return model.spec.triggers if isinstance(model, PolicyDocument) else {}


def _text(policies: Mapping[str, Document], policy: str, trigger: str) -> WrittenTrigger | None:
    """The trigger as written, with what the selected variant changes in it; None if there is none."""
    document = policies.get(policy)
    if document is None or trigger not in _triggers(document):
        return None
    part = _triggers(document)[trigger]
    parts, keys = [part.model_copy(update={"formerly": None})], _written(document, ("spec", "triggers", trigger))
    if not keys:
        keys = _written(document, ("spec", "breaker", trigger))
    spec = document.model.spec if isinstance(document.model, PolicyDocument) else None
    selected = getattr(spec, "variant", None)
    override = None if selected is None else getattr(spec, "variants", {})[selected].triggers.get(trigger)
    if override is not None:
        parts.append(override)
        keys |= _written(document, ("spec", "variants", str(selected), "triggers", trigger))
    return WrittenTrigger(policy, trigger, keys, sha256(canonical(parts).encode()).hexdigest())


def _written(document: Document, path: tuple[str, ...]) -> dict[str, str]:
    """The keys of a mapping as they are written, without those that say nothing of when it is true."""
    node = document.source.node(path)
    value = None if node is None else plain_value(node)
    if not isinstance(value, dict):
        return {}
    return {key: one_line(legible(_in_text(each))) for key, each in value.items() if key not in SAID_ELSEWHERE}


def _in_text(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_in_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_in_text, value)) + "]"
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _earlier_names(text: WrittenTrigger, version: SetVersion) -> Sequence[tuple[str, str]]:
    """The names under which the set before may have the trigger: its own, and those that `formerly` declares."""
    document = (_policies_in(version.files) or {}).get(text.policy)
    if document is None:
        return [(text.policy, text.trigger)]
    policies = (getattr(getattr(document.model, "spec", None), "formerly", None), text.policy)
    triggers = (getattr(_triggers(document)[text.trigger], "formerly", None), text.trigger)
    return [(policy, trigger) for trigger in triggers for policy in policies if policy and trigger]


def blame_page(found: Blame) -> Page:
    """Which change gave the trigger its present text, who made it, and what it was before."""
    origin, now = found.origin, found.now
    since = "not committed yet" if found.at is None else instant(found.at)
    if found.is_oldest and found.at is not None:
        since += ", where the history begins: it may be older"
    before = "it was not there" if found.before is None else _keys(found.before)
    facts = (
        ("Trigger", f"{now.policy}/{now.trigger}"),
        ("In force", _keys(now)),
        ("Since", since),
        ("Commit", origin.commit or "none"),
        ("Source", " ".join(filter(None, (origin.source, origin.ref)))),
        ("Signed by", _signers(found)),
        ("Written by", f"{', '.join(origin.claimed)} (as the commit states)" if origin.claimed else "unknown"),
        ("Approved by", ", ".join(each.principal for each in origin.approvals) or "nobody on record"),
        *((("Class", origin.verdict),) if origin.verdict else ()),
        *((("Commanded", f"{origin.operator}: {origin.reason or 'no reason'}"),) if origin.operator else ()),
        ("Before", "unknown" if found.is_oldest else before),
        *((("Unread", f"{', '.join(each[:12] for each in found.unread)}: the change may be one of them"),)
          if found.unread else ()),
    )  # fmt: skip
    return Page("Blame", facts=Facts(facts))


def _keys(text: WrittenTrigger) -> str:
    """The keys of a trigger in one line."""
    return ", ".join(f"{key}: {value}" for key, value in text.keys.items())


def _signers(found: Blame) -> str:
    if found.origin.signers:
        return ", ".join(found.origin.signers)
    if found.is_signed is None:
        return "nobody on record"
    return "the commit has a signature, which is not verified here" if found.is_signed else "nobody: it is not signed"
