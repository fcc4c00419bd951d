"""Anchors: the number and the root of a chain, published where its writer cannot change it.

An anchor is chain id, number and root, and nothing else. It proves that exactly these entries existed when it was made,
if the anchor is genuine: whoever fetches it judges that, by a signature of git or by an RFC 3161 time stamp.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from msgspec import Struct

ANCHOR_FORMAT: Final = "killswitch.anchor/v1"

AnchorState = Literal[
    "confirmed",  # the log has exactly these entries up to its number
    "contradicted",  # the log has other entries, or is shorter, or another anchor of the number has another root
    "removed",  # retention has removed lines up to behind its number: the next anchor covers them too
    "superseded",  # an epoch was declared before its number: what it covers was lost by a restore
    "other record",  # it is of another chain that was only ever published together with this one: that of the servers
    "could not tell",  # lines before its number are missing, or it may be of another record that is not at hand
]


OtherRecords = Literal[
    "known",  # anchors of every other record were taken out: one of another chain contradicts
    "expected",  # the other record has to be at hand: one of another chain shows that it is not
    "possible",  # the other record may be elsewhere
]
"""What is known of other records that are published together with one, as that of the servers is."""


class Anchor(Struct, frozen=True, order=True):
    """Chain id, number of entries, and root in hexadecimal digits."""

    chain: str
    number: int
    root: str


class FetchedAnchor(Struct, frozen=True):
    """An anchor with where it was fetched, and when its place says that it was made; None where it does not."""

    anchor: Anchor
    place: str
    at: str | None = None
    refused: str | None = None
    """Why it is not taken for genuine; None where it is."""
    publication: str | None = None
    """What published it together with the anchors of other chains, such as a commit; None where that is unknown."""


class AnchorVerdict(Struct, frozen=True):
    """What the log says of one anchor."""

    fetched: FetchedAnchor
    state: AnchorState
    why: str | None = None


_TEXT: Final = re.compile(
    rf"{re.escape(ANCHOR_FORMAT)}\nchain ([0-9a-f]{{32}})\nnumber (0|[1-9][0-9]{{0,17}})\nroot ([0-9a-f]{{64}})\n"
)


def anchor_text(anchor: Anchor) -> str:
    """The four lines that are published, signed or stamped."""
    return f"{ANCHOR_FORMAT}\nchain {anchor.chain}\nnumber {anchor.number}\nroot {anchor.root}\n"


def read_anchors(text: str) -> tuple[Anchor, ...]:
    """The anchors of a published text, which has those of several chains. ValueError where it has anything else."""
    found, at = [], 0
    while at < len(text):
        match = _TEXT.match(text, at)
        if match is None:
            raise ValueError(f"line {text.count(chr(10), 0, at) + 1} does not begin an anchor: {text[at : at + 60]!r}")
        found.append(Anchor(match[1], int(match[2]), match[3]))
        at = match.end()
    return tuple(found)


def forks_of(fetched: Iterable[FetchedAnchor]) -> Mapping[tuple[str, int], frozenset[str]]:
    """Chain and number → the roots of genuine anchors, where they have several: one of the histories is false."""
    roots: dict[tuple[str, int], set[str]] = {}
    for each in fetched:
        if each.refused is None:
            roots.setdefault((each.anchor.chain, each.anchor.number), set()).add(each.anchor.root)
    return {key: frozenset(found) for key, found in roots.items() if len(found) > 1}


class DeclaredEpoch(Struct, frozen=True):
    """An epoch that the log declares at line `at`: from the line before on it continues chain `before` as `chain`."""

    at: int
    before: str
    chain: str
    newest_anchor: int | None = None

    @property
    def lost(self) -> int | None:
        """How many entries the newest anchor known covered that the restored log does not have; None if unknown."""
        return None if self.newest_anchor is None else max(0, self.newest_anchor - (self.at - 1))


def judge(
    fetched: Iterable[FetchedAnchor],
    roots: Mapping[int, str | None],
    last: int,
    chain: str,
    epochs: Iterable[DeclaredEpoch],
    removed: int = 0,
    *,
    others: OtherRecords = "possible",
) -> tuple[AnchorVerdict, ...]:
    """The verdict of each genuine anchor, in the order of their numbers.

    `roots`: number → the root of the log there, None where lines before it are missing. `last`: the number of the last
    line. `chain`: the id of the chain at its beginning; `epochs` change it. `removed`: the number of the last line that
    retention has removed.
    """
    genuine = sorted((each for each in fetched if each.refused is None), key=lambda each: each.anchor)
    forks, declared = forks_of(genuine), tuple(epochs)
    known = {chain, *(each.chain for each in declared), *(each.before for each in declared)}
    unknown = _other_chains(genuine, known, others)
    found = []
    for each in genuine:
        if each.anchor.chain in unknown:
            found.append(AnchorVerdict(each, *unknown[each.anchor.chain]))
            continue
        state, why = _judged(each.anchor, roots, last, forks, declared)
        if state == "could not tell" and each.anchor.number < removed:
            state, why = "removed", f"retention has removed the lines up to {removed}"
        found.append(AnchorVerdict(each, state, why))
    return tuple(found)


def _other_chains(
    genuine: Iterable[FetchedAnchor], known: set[str], others: OtherRecords
) -> Mapping[str, tuple[AnchorState, str]]:
    """What anchors of chains that the log does not know say of it, by chain.

    A record that was written again whole has another chain id, and its old anchors are nowhere together with its new
    ones. The chain of the servers was never published without this one.
    """
    published: dict[str, set[str | None]] = {}
    for each in genuine:
        published.setdefault(each.anchor.chain, set()).add(each.publication)
    ours = {place for chain, places in published.items() if chain in known for place in places}
    found: dict[str, tuple[AnchorState, str]] = {}
    for chain, places in published.items():
        if chain in known:
            continue
        if others == "known" or not ours or (None not in places and not places & ours):
            why = f"it is of chain {chain}, and no line links that with this record: written again, or another store"
            found[chain] = ("contradicted", why)
        elif others == "possible" and None not in places and places <= ours:
            found[chain] = ("other record", f"it is of chain {chain}, which was published with this one")
        else:
            found[chain] = ("could not tell", f"it is of chain {chain}, whose record is not at hand")
    return found


def _judged(
    anchor: Anchor,
    roots: Mapping[int, str | None],
    last: int,
    forks: Mapping[tuple[str, int], frozenset[str]],
    epochs: tuple[DeclaredEpoch, ...],
) -> tuple[AnchorState, str | None]:
    if (anchor.chain, anchor.number) in forks:
        return "contradicted", f"there are anchors of number {anchor.number} with different roots"
    ended = next((each for each in epochs if each.before == anchor.chain), None)
    if ended is not None and anchor.number >= ended.at:
        return "superseded", f"the log declares a restore at line {ended.at}"
    if anchor.number > last:
        return "contradicted", f"the log ends at line {last}: {anchor.number - last} entries are missing at its end"
    root = roots.get(anchor.number)
    if root is None:
        return "could not tell", "lines before it are missing"
    return ("confirmed", None) if root == anchor.root else ("contradicted", "the log has other entries up to there")
