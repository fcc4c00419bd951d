"""The comment of an impact: one Markdown text below the limit of a forge, updated in place by its marker.

Names and messages of the head are texts of a stranger: markup, mentions, references and links in them are inert. The
text is shortened in steps until it fits; no step leaves out a loosening.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final
from urllib.parse import quote

from killswitch.model.legible import one_line, shortened
from killswitch.operations.impact.classification import NEEDS_APPROVAL, ClassifiedChange
from killswitch.operations.pull_request import tables
from killswitch.operations.pull_request.answer import ImpactAnswer, ImpactSubject, SideFacts
from killswitch.render.document import Table, escaped_markdown, table_lines
from killswitch.render.formats import count_of

MOST_CHARACTERS: Final = 65_536
"""The longest comment that GitHub takes."""
_FULL, _NO_SCENARIOS, _NO_DETAILS, _NO_KEYS, _SHORT, _NAMES = range(6)
"""Steps of shortening: everything; without scenarios; without single firings and tightenings; without keys; each
reason in 40 characters; names only."""
_SHORT_REASON = 40
_MOST_PROBLEMS = 40
_SPACE = "&#8203;"
_MENTION = re.compile(
    r"@(?=[\w/-])|(?<=:)(?=//)|(?<=\bwww)(?=\.)|(?<=#)(?=\d)|(?<=\bGH)(?=-\d)|(?<=mailto)(?=:)|(?<=killswitch)(?=-impact)",
    re.IGNORECASE,
)
"""Where a space of no width goes, so that a forge makes no mention, link or reference, and nothing is a marker."""


class CommentTooLongError(Exception):
    """The names of all loosenings do not fit into a comment."""


def marker(subject: ImpactSubject) -> str:
    """The line by which a job finds its own comment; every part is quoted, so that none can end it."""
    named = (("repository", subject.repository), ("environment", subject.environment), ("set", subject.set))
    parts = (f"{name}={quote(value, safe='/').replace('--', '%2D%2D') or 'default'}" for name, value in named)
    return f"<!-- killswitch-impact {' '.join(parts)} -->"


def comment_text(answer: ImpactAnswer, charts: Sequence[str] = ()) -> str:
    """The comment, with a final line break. `charts`: names of the drawings that are attached to the job.

    CommentTooLongError if even the names of its loosenings do not fit.
    """
    for step in range(_NAMES + 1):
        text = "\n".join(_lines(answer, step, charts)).rstrip() + f"\n\n{marker(answer.subject)}\n"
        if len(text) <= MOST_CHARACTERS:
            return text
    raise CommentTooLongError(f"the names of all differences do not fit into {MOST_CHARACTERS:,} characters")


def failure_comment(subject: ImpactSubject, reason: str) -> str:
    """The comment of a run that failed: its text is another one than that of a change without a verdict."""
    lines = (
        "**The tool failed: nothing is known of this change.**",
        "",
        inert(shortened(reason, 2_000)),
        "",
        marker(subject),
    )
    return "\n".join(lines) + "\n"


def inert(text: str) -> str:
    """A text of a stranger on one line: no markup, mention, reference or link in it has an effect."""
    return _MENTION.sub(lambda found: f"{found[0]}{_SPACE}", escaped_markdown(one_line(text)))


def html_text(text: str) -> str:
    """The same inside an HTML element, where nothing is Markdown."""
    return _MENTION.sub(lambda found: f"{found[0]}{_SPACE}", escape(one_line(text)))


def _lines(answer: ImpactAnswer, step: int, charts: Sequence[str]) -> Iterator[str]:
    yield f"**{inert(shortened(answer.sentence, 1_500))}**\n"
    yield f"Head {_side(answer.head)} against base {_side(answer.base)}. {inert(tables.snapshot_line(answer))}\n"
    problems = [*tables.problem_lines(answer), *_unfinished(answer)]
    if problems:
        yield "### Not known\n"
        yield from (f"- {inert(shortened(each, 400 if step < _SHORT else 80))}" for each in problems[:_MOST_PROBLEMS])
        if len(problems) > _MOST_PROBLEMS:
            yield f"- and {len(problems) - _MOST_PROBLEMS} more, which the JSON and the page name"
        yield ""
    yield from _changes(answer, step)
    if answer.classification is not None:
        yield from _proved(answer, step)
        yield "### On arrival\n"
        yield from (f"- {inert(shortened(each, 400))}" for each in tables.arrival_lines(answer))
        yield ""
        if answer.shadow:
            yield "### In shadow\n"
            shown = answer.shadow if step < _NO_DETAILS else answer.shadow[:1]
            yield from (f"- {inert(shortened(each, 400))}" for each in shown)
            yield ""
        yield from _replays(answer, step)
    if charts:
        names = ", ".join(f"`{each}`" for each in charts)
        yield f"Charts, as files of this job, because a comment cannot hold them: {names}.\n"
    if step > _FULL:
        limit = f"This comment is shortened to {MOST_CHARACTERS:,} characters"
        yield f"{limit}; every loosening is named. The JSON and the page have everything.\n"


def _side(side: SideFacts) -> str:
    commit = "files that no commit holds" if side.commit is None else f"commit `{side.commit[:12]}`"
    return f"{inert(shortened(side.label, 100))} ({commit}, `{side.digest[:19]}`)"


def _unfinished(answer: ImpactAnswer) -> Sequence[str]:
    return () if answer.classification is None else answer.classification.unfinished


def _table(table: Table) -> Iterator[str]:
    yield from (_MENTION.sub(lambda found: f"{found[0]}{_SPACE}", line) for line in table_lines(_legible(table)))
    yield ""


def _legible(table: Table) -> Table:
    rows = tuple(tuple(one_line(cell) for cell in row) for row in table.rows)
    return Table(table.head, rows, table.numbers)


def _changes(answer: ImpactAnswer, step: int) -> Iterator[str]:
    """The table of differences. A short comment lists what is no longer loaded and what the proof does not compare."""
    if not answer.differences:
        return
    shown = answer.differences
    if step >= _NO_KEYS:
        shown = tuple(each for each in shown if each.change == "no longer loaded" or each.verdict in NEEDS_APPROVAL)
        removed = [row for row in tables.differences_table(answer.differences).rows if row[0] == "trigger removed"]
        yield f"### Differences ({len(answer.differences)} documents)\n"
        yield from (f"- trigger removed: {inert(row[1])} {inert(row[2])}" for row in removed)
        reason = 400 if step < _SHORT else _SHORT_REASON if step < _NAMES else 0
        yield from (
            f"- {each.verdict or ''} {each.change}: {inert(each.kind)} {inert(each.name)}"
            + (f": {inert(shortened(each.why, reason))}" if reason and each.why else "")
            for each in shown
        )
        yield ""
        return
    yield "### Differences\n"
    yield from _table(tables.differences_table(shown))
    reasons = [
        f"- {each.verdict}: {inert(each.kind)} {inert(each.name)}: {inert(each.why)}"
        for each in shown
        if each.verdict and each.keys
    ]
    yield from (*reasons, "") if reasons else ()


def _proved(answer: ImpactAnswer, step: int) -> Iterator[str]:
    classification = answer.classification
    assert classification is not None  # the caller has asked
    softer = [each for each in classification.changes if each.verdict in NEEDS_APPROVAL]
    others = [each for each in classification.changes if each.verdict not in NEEDS_APPROVAL]
    yield f"### What is proved: {classification.verdict}\n"
    if step < _SHORT:
        verdicts = tables.verdicts_table(answer, needing_approval=step >= _NO_KEYS)
        if verdicts.rows:
            yield from _table(verdicts)
    longest = {_SHORT: _SHORT_REASON, _NAMES: 0}.get(step, 600)
    if step == _NAMES:
        yield from _named(softer)
    for each in softer if step < _NAMES else ():
        yield f"- **{each.verdict}** {inert(each.policy)}, {each.part}: {inert(shortened(each.text, longest))}"
        if step == _FULL:
            yield from _witness(each)
    if others and step < _NO_DETAILS:
        yield f"\n<details><summary>{len(others)} that tighten or change nothing</summary>\n"
        yield from (f"- {each.verdict} {inert(each.policy)}, {each.part}: {inert(each.text)}" for each in others)
        yield "\n</details>"
    elif others:
        yield f"- {len(others)} tighten or change nothing"
    yield ""


def _named(changes: Sequence[ClassifiedChange]) -> Iterator[str]:
    """The names of all changes, by their class."""
    for verdict in ("LOOSENING", "NEITHER", "UNDECIDED"):
        names = dict.fromkeys(inert(each.policy) for each in changes if each.verdict == verdict)
        if names:
            yield f"- **{verdict}** ({len(names)} policies): {', '.join(names)}"


def _witness(change: ClassifiedChange) -> Iterator[str]:
    """The scenario of a loosening, folded; inside its fence nothing is markup."""
    if change.scenario:
        lines = [one_line(line).replace("<!--", "<! --") for line in change.scenario.rstrip("\n").split("\n")]
        fence = "`" * max(3, 1 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
        yield "\n  <details><summary>Witness, as a scenario for ksctl test</summary>\n"
        yield from (f"  {line}".rstrip() for line in (f"{fence}yaml", *lines, fence))
        yield "\n  </details>\n"
    elif change.why_none:
        yield f"  - no witness as a scenario: {inert(change.why_none)}"


def _replays(answer: ImpactAnswer, step: int) -> Iterator[str]:
    crashes = [each for each in answer.crashes if not each.problem]
    if crashes:
        differing = [each for each in crashes if tables.differs(each)]
        same = len(crashes) - len(differing)
        yield "### In past crashes\n"
        if differing:
            yield "Base → head. Amounts are those of the book that is replayed.\n"
            yield from _table(tables.crashes_table(differing))
        if same:
            yield f"In {same} of {len(crashes)} replays both fire the same, at the same times.\n"
        if step < _NO_DETAILS:
            yield from _firings(answer)
    calm = [each for each in answer.calm if not each.problem]
    if calm:
        yield "### False firings in calm spans\n"
        yield from _table(tables.calm_table(calm))
    for recording in answer.recordings:
        moved = [each for each in recording.firings if each.word != "the same"]
        if not recording.problem:
            yield f"### Recording {inert(recording.recording)}\n"
            firings = count_of(len(recording.firings), "firing")
            counted = f"{firings} over {recording.snapshots:,} snapshots, {len(moved)} differ"
            yield f"{counted}. Decisions only: the equity of a recording is that of the base.\n"
            if moved and step < _NO_DETAILS:
                yield from _table(tables.firings_table(moved))
    if crashes or calm or answer.recordings:
        yield "A replay is one history: it gives no verdict and overrules none.\n"


def _firings(answer: ImpactAnswer) -> Iterator[str]:
    for each in answer.crashes:
        table = tables.firings_table(each.firings)
        if table.rows:
            count = count_of(len(table.rows), "firing")
            name = html_text(f"{each.span}, {each.book}: {count} moved, gone, new or of another size")
            yield f"<details><summary>{name}</summary>\n"
            yield from _table(table)
            yield "</details>\n"
