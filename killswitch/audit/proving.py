"""Proofs that one line is in the record, made from a log or a store, and checked with an anchor alone.

Anchors are read from files of anchor texts, and folders of them. A file is as genuine as its source: whoever verifies
has fetched it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from killswitch.audit.git_anchors import anchors_in_clone
from killswitch.audit.log_files import AuditError, LineSource, kept_segments, raw_lines, start_of
from killswitch.audit.time_stamps import ANSWER_SUFFIX, refusal_of_stamp, stamp_time_text
from killswitch.model.legible import legible
from killswitch.record.anchors import Anchor, FetchedAnchor, read_anchors
from killswitch.record.checkpoint import Start
from killswitch.record.line import content_of, keys_of, leaf_of, read_head
from killswitch.record.tree import Proof, TreeEdge, inclusion_path, refusal_of

SUFFIXES: Final = (".anchor", ".txt")
_MOST_BYTES: Final = 16 * 1024 * 1024


class ProofAnswer(Struct, frozen=True):
    """Why a proof is refused, None where it shows its line; and the anchor that it was held against."""

    why: str | None
    anchor: FetchedAnchor | None


class AnchorTrust(Struct, frozen=True):
    """Whom to trust for anchors: the signers of commits (`ssh-keygen`'s form), and of time stamps (PEM)."""

    signers: Path | None = None
    certificates: Path | None = None
    branch: str = "anchors"


def fetched_anchors(place: Path, trust: AnchorTrust | None = None) -> tuple[FetchedAnchor, ...]:
    """The anchors at a path: a file, a folder of files, or a clone of a git repository.

    Raises AuditError where there is none, or one that cannot be read. A time stamp, and a commit, that `trust` does not
    confirm has the reason in `refused`.
    """
    trust = AnchorTrust() if trust is None else trust
    try:
        if (place / ".git").exists() or (place / "HEAD").exists():
            return anchors_in_clone(place, trust.branch, trust.signers)
        if place.is_dir():
            files = sorted(each for each in place.iterdir() if each.suffix in SUFFIXES and each.is_file())
        else:
            files = [place]
        found = tuple(anchor for file in files for anchor in _in_file(file, trust))
    except OSError as error:
        raise AuditError(f"the anchors {place} cannot be read: {error.strerror or error}") from error
    if not found:
        raise AuditError(f"there is no anchor in {place}: name a file of anchor texts, or a folder of *.anchor files")
    return found


def _in_file(file: Path, trust: AnchorTrust) -> Iterator[FetchedAnchor]:
    if file.stat().st_size > _MOST_BYTES:
        raise AuditError(f"{file} is too long for anchors")
    try:
        text = file.read_bytes().decode("ascii").replace("\r\n", "\n")
        anchors = read_anchors(text)
    except ValueError as error:
        raise AuditError(f"{file} is no file of anchors: {legible(str(error))}") from error
    stamp = file.with_suffix(ANSWER_SUFFIX)
    at, refused = None, None
    if stamp.exists():
        answer = stamp.read_bytes()
        at = stamp_time_text(answer)
        if trust.certificates is None:
            refused = "no certificates are named by which its time stamp can be verified"
        else:
            refused = refusal_of_stamp(text.encode(), answer, trust.certificates)
    publication = str(file) if stamp.exists() else None  # a plain file may be a collection
    yield from (FetchedAnchor(each, str(file), at, refused, publication) for each in anchors)


def size_for(anchors: Iterable[Anchor], number: int) -> int | None:
    """The number of the first anchor that covers line `number`; None where none does."""
    return min((each.number for each in anchors if each.number >= number), default=None)


def check_proof(proof: Proof, anchors: Iterable[FetchedAnchor]) -> ProofAnswer:
    """Hold a proof against the genuine anchor of its chain and size."""
    fitting = [each for each in anchors if each.anchor.chain == proof.chain and each.anchor.number == proof.size]
    genuine = [each for each in fitting if each.refused is None]
    if not genuine:
        why = fitting[0].refused if fitting else f"there is no anchor of chain {proof.chain} and number {proof.size}"
        return ProofAnswer(why, fitting[0] if fitting else None)
    if len({each.anchor.root for each in genuine}) > 1:
        return ProofAnswer(f"there are anchors of number {proof.size} with different roots", genuine[0])
    return ProofAnswer(refusal_of(proof, proof.size, bytes.fromhex(genuine[0].anchor.root)), genuine[0])


def lines_of_log(log: Path) -> Iterator[bytes]:
    """The lines of a log without their LF, segment after segment."""
    for segment in kept_segments(log, start_of(log)):
        for raw in raw_lines(segment.path):
            yield raw.rstrip(b"\r\n")


def lines_of_source(source: LineSource) -> Iterator[bytes]:
    """The lines of a store."""
    return (line.text for line in source.record_lines())


def prove_from_log(log: Path, wanted: str, size: int | None = None) -> Proof:
    """The proof for a line of a log; `wanted` and `size` as in `prove`. Raises AuditError."""
    return prove(lines_of_log(log), wanted, size, start_of(log))


def prove_from_source(source: LineSource, wanted: str, size: int | None = None) -> Proof:
    """The proof for a line of a store; `wanted` and `size` as in `prove`. Raises AuditError."""
    return prove(lines_of_source(source), wanted, size, source.record_start())


def prove(lines: Iterable[bytes], wanted: str, size: int | None = None, start: Start | None = None) -> Proof:
    """The proof that a line is in a record of `size` lines, by default of all of them.

    `wanted`: its number, or the beginning of the id of a decision. Raises AuditError where there is no such line, or
    several decisions begin so.
    """
    start = Start() if start is None else start
    leaves: list[bytes] = []
    chain, found = start.chain or "", None
    for text in lines:
        head = read_head(text)
        if head is None or (size is not None and head.number > size):
            break
        if head.number != start.number + len(leaves) + 1:
            raise AuditError(f"line {head.number} follows line {start.number + len(leaves)}: verify the record first")
        leaves.append(leaf_of(text))
        if is_wanted(text, head.number, wanted):
            if found is not None:
                raise AuditError(f"several decisions begin with {wanted!r}: give more of the id, or the number")
            found = (head.number, text)
        chain = chain_after(text, chain)
    if found is None:
        part = "record" if size is None else f"first {size} lines of the record, which --size names,"
        raise AuditError(f"no line of the {part} is number {wanted} or the decision {wanted!r}")
    whole = start.number + len(leaves)
    if size is not None and whole < size:
        raise AuditError(f"the record has {whole} lines, a proof for {size} cannot be made")
    path = inclusion_path(leaves, found[0] - 1, TreeEdge(start.number, start.hashes))
    return Proof.of(chain, found[1], whole, path)


def is_wanted(text: bytes, number: int, wanted: str) -> bool:
    """Whether a line has this number, or is the decision whose id begins so."""
    if wanted.isdigit() and int(wanted) == number:
        return True
    if b'"kind":"decision"' not in text:
        return False
    keys = keys_of(text) or {}
    return keys.get("kind") == "decision" and str(keys.get("decision", "")).startswith(wanted)


def chain_after(text: bytes, chain: str) -> str:
    """The id of the chain after a line: the first line and that of an epoch name another one."""
    if b'"chain":"' not in text:
        return chain
    content = content_of(text)
    return chain if content is None or content.chain is None else content.chain
