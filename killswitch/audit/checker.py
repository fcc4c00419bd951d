"""Disproves or confirms a statement about a record: one file of the standard library, for whoever was given one.

    python checker.py statement.json --log FOLDER --anchors FILE [--anchors FILE ...]

STATEMENT is the JSON that `ksctl audit statement` wrote, FOLDER the segments (*.jsonl) that came with it, and each FILE
the anchors that YOU fetched from where they are published: whoever wrote the record can write a file of anchors. Every
figure is computed again from the lines, and printed next to what is claimed.

Exit codes: 0 verified, every figure is equal and both ends are anchored; 1 contradicted, a figure differs, the chain
breaks, an anchor differs, or the log is shorter than an anchor; 4 could not tell, something is missing. Contradicted
wins.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

Keys = dict[str, Any]
FoundAnchor = tuple[str, int, str]

FORMAT = "killswitch.statement/v1"
LINES = "killswitch.audit/v1"
HEAD = re.compile(rb'\{"prev":"([0-9a-f]{64})","seq":([1-9][0-9]{0,17}),')
ANCHOR = re.compile(r"killswitch\.anchor/v1\nchain ([0-9a-f]{32})\nnumber (0|[1-9][0-9]{0,17})\nroot ([0-9a-f]{64})\n")
MOST_BYTES = 700
NOT_CLAIMED = (
    "It claims nothing about what was never written to the record.",
    "It claims nothing about entries behind its last anchor.",
    "Times are those of the runner's clock; an anchor with a time stamp bounds them from one side.",
    "A watched account is one whose snapshots were usable, and not one whose venue told the truth.",
    "Time with no way to page is what notifications show: where none was due, nothing is known.",
)
NO_WAY_AFTER = 60.0
"""Seconds that a notification waits, while none is delivered, before there counts as having been no way to page."""
MOST_GAPS = 100
"""Gaps of an account that are listed: the longest ones."""


class LineTree:
    """The edge of the tree of RFC 6962 over the leaves so far."""

    def __init__(self) -> None:
        self.size = 0
        self.hashes: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        full = self.size
        while full & 1:
            leaf = sha256(b"\1" + self.hashes.pop() + leaf).digest()
            full >>= 1
        self.hashes.append(leaf)
        self.size += 1

    def root(self) -> str:
        if not self.hashes:
            return sha256(b"").hexdigest()
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = sha256(b"\1" + left + root).digest()
        return root.hex()


class Log:
    """The lines of a log, verified: what breaks it, what is missing, and the roots at the numbers that are wanted."""

    def __init__(self, wanted: Iterable[int], checkpoint: bytes | None = None) -> None:
        """`checkpoint`: what is known of lines that retention has removed; a line has to name its digest."""
        self.wanted = frozenset(wanted)
        self.roots: dict[int, str] = {}
        self.tree, self.last, self.leaf = LineTree(), 0, bytes(32)
        self.wrong: list[str] = []
        self.missing: list[str] = []
        self.chain: str | None = None
        self.ended: dict[str, int] = {}
        """The chains before, each with its last line: a restore ends one."""
        self.undeclared = None if checkpoint is None else sha256(checkpoint).hexdigest()
        if checkpoint is not None:
            known = json.loads(checkpoint)
            self.last, self.leaf, self.chain = int(known["number"]), bytes.fromhex(known["leaf"]), known["chain"]
            self.tree.size, self.tree.hashes = self.last, [bytes.fromhex(each) for each in known["edge"]]
            self.ended = {each["before"]: each["at"] - 1 for each in known.get("epochs", ())}
        self.first = self.last + 1
        self.note()

    def note(self) -> None:
        if self.last in self.wanted and not self.missing:
            self.roots[self.last] = self.tree.root()

    def add(self, raw: bytes, place: str, *, starts_segment: bool) -> Keys | None:
        """Take the next line, without its LF; returns its keys, or None where it has none."""
        head, due = HEAD.match(raw), self.last + 1
        if head is None or len(raw) > MOST_BYTES:
            self.wrong.append(f"{place}: this is no line of a record")
            self.last, self.leaf = due, sha256(b"\0" + raw).digest()
            return None
        number = int(head[2])
        if number > due and starts_segment:
            self.missing.append(f"lines {due} to {number - 1} are missing")
        elif number != due:
            self.wrong.append(f"{place}: line {number} follows line {self.last}")
        elif bytes.fromhex(head[1].decode()) != self.leaf:
            self.wrong.append(f"{place}: line {number} does not follow line {self.last} as that is")
        self.last, self.leaf = max(self.last, number), sha256(b"\0" + raw).digest()
        self.tree.append(self.leaf)
        self.note()
        try:
            keys: Keys = json.loads(raw)
        except ValueError:
            self.missing.append(f"{place}: line {number} cannot be read")
            return None
        if keys.get("kind") in ("chain", "epoch"):
            self.begin(keys, number)
        if keys.get("kind") == "retention" and (keys.get("body") or {}).get("sha256") == self.undeclared:
            self.undeclared = None
        return keys

    def finish(self) -> None:
        """Call it after the last line."""
        if self.undeclared is not None:
            self.wrong.append(f"lines 1 to {self.first - 1} are gone, and no line states that retention removed them")

    def begin(self, keys: Keys, number: int) -> None:
        if keys.get("format") != LINES:
            self.missing.append(f"line {number} has the format {keys.get('format')}, which this file does not know")
        if self.chain is not None and keys.get("kind") == "epoch":
            self.ended[self.chain] = number - 1
        self.chain = keys.get("chain") if self.chain is None or keys.get("kind") == "epoch" else self.chain


class PeriodFigures:
    """The figures of a statement, each by the query in its name, over the lines from `first` to `last`."""

    def __init__(self, first: int, last: int, begin: int = 1) -> None:
        """`begin`: the first line that there was when the statement was made."""
        self.first, self.last, self.begin = first, last, begin
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in (
            "entries by kind", "decisions by policy and stage", "closes by result", "commands by verb and result",
            "loosenings by class and result", "notifications by state")}  # fmt: skip
        self.sets: list[list[Any]] = []
        self.spans: dict[str, list[tuple[datetime, datetime]]] = {}
        self.times: list[datetime] = []
        self.starts = self.unclean = self.late = self.unknown_results = 0
        self.open: dict[int, str] = {}
        self.is_running = False
        self.epochs: list[int] = []
        self.announced: dict[int, datetime] = {}
        self.slowest = 0.0
        self.runs: list[tuple[datetime, str]] = []
        self.in_memory: dict[str, str] = {}
        self.unreached: datetime | None = None
        self.no_way: list[list[str]] = []
        self.fired: set[str] = set()
        self.notified: set[str] = set()

    def add(self, keys: Keys) -> None:
        """Count one line. What came before the period only decides whether a run was under way."""
        number, kind = keys["seq"], keys["kind"]
        if number < self.begin:
            return
        if kind in ("started", "ended"):
            if self.first <= number <= self.last and kind == "started":
                self.starts += 1
                self.unclean += self.is_running
            self.is_running = kind == "started"
        if not self.first <= number <= self.last:
            return
        at = instant(keys["at"])
        self.times.append(at)
        self.counts["entries by kind"][kind] += 1
        if "late" in keys:
            self.late += 1
            self.in_memory.setdefault(keys["late"], keys["at"])
        if kind in ("started", "ended"):
            self.runs.append((at, kind))
        if keys.get("announces"):
            self.open[number] = kind
        self.open.pop(keys.get("answers", 0), None)
        count = getattr(self, f"count_{kind}", None)
        if count is not None:
            count(keys, at)

    def count_policy_set(self, keys: Keys, _at: datetime) -> None:
        self.sets.append([keys.get("policy_set"), keys["at"]])

    def count_decision(self, keys: Keys, _at: datetime) -> None:
        stage = keys.get("stage") or keys.get("decided")
        self.counts["decisions by policy and stage"][f"{keys.get('policy')}/{stage}/{keys.get('decided')}"] += 1
        if keys.get("decided") == "stage" and keys.get("mode") == "enforce":
            self.fired.add(keys["at"])

    def count_order(self, keys: Keys, _at: datetime) -> None:
        if keys.get("entry") == "finished" and "account" in keys:
            status = (keys.get("details") or {}).get("status")
            self.unknown_results += status is None
            self.counts["closes by result"][status or "unknown"] += 1

    def count_command(self, keys: Keys, _at: datetime) -> None:
        self.counts["commands by verb and result"][f"{keys.get('verb')}/{result(keys)}"] += 1

    def count_loosening(self, keys: Keys, _at: datetime) -> None:
        self.counts["loosenings by class and result"][f"{keys.get('class')}/{keys.get('result')}"] += 1

    def count_notification(self, keys: Keys, at: datetime) -> None:
        self.announced[keys["seq"]] = at
        self.notified.add(keys["at"])
        self.unreached = self.unreached or at
        self.counts["notifications by state"]["announced"] += 1

    def count_delivery(self, keys: Keys, at: datetime) -> None:
        self.counts["notifications by state"][str(keys.get("state"))] += 1
        begun = self.announced.pop(keys.get("answers", 0), None)
        if keys.get("state") == "delivered":
            if begun is not None:
                self.slowest = max(self.slowest, (at - begun).total_seconds())
            self.reached(at)
            self.unreached = at if self.announced else None

    def reached(self, at: datetime) -> None:
        """Some notification is delivered, or the period ends: since the first one that waited, none was."""
        if self.unreached is not None and (at - self.unreached).total_seconds() > NO_WAY_AFTER:
            self.no_way.append([text_of(self.unreached), text_of(at)])

    def gaps(self, spans: list[tuple[datetime, datetime]], begin: datetime, end: datetime) -> list[list[str]]:
        """The times outside of an account's spans, each with its reason: the longest ones, in their order."""
        found, until = [], begin
        for first, last in [*sorted(spans), (end, end)]:
            if first > until:
                found.append((until, min(first, end)))
            until = max(until, last)
        longest = sorted(found, key=lambda gap: gap[1] - gap[0])[-MOST_GAPS:]
        return [[text_of(a), text_of(b), self.reason_of(a, b)] for a, b in sorted(longest) if b > a]

    def reason_of(self, begin: datetime, end: datetime) -> str:
        """Why nothing was watched: by what runs did meanwhile."""
        kinds = [kind for at, kind in self.runs if begin <= at <= end]
        if "ended" in kinds:
            return "a run had ended"
        return "a run ended without a line about it, or had not begun" if kinds else "no usable snapshot"

    def count_watched(self, keys: Keys, _at: datetime) -> None:
        self.spans.setdefault(str(keys.get("account")), []).append((instant(keys["from"]), instant(keys["to"])))

    def count_epoch(self, keys: Keys, _at: datetime) -> None:
        self.epochs.append(keys["seq"])

    def values(self) -> dict[str, Any]:
        """Every figure by its name."""
        if self.times:
            self.reached(max(self.times))
            self.unreached = None
        no_way = sum((instant(end) - instant(begin)).total_seconds() for begin, end in self.no_way)
        found: dict[str, Any] = {name: dict(sorted(counter.items())) for name, counter in self.counts.items()}
        length = (max(self.times) - min(self.times)).total_seconds() if self.times else 0.0
        watched = {name: union(spans, min(self.times), max(self.times)) for name, spans in sorted(self.spans.items())}
        found |= {
            "policy sets in force": self.sets,
            "runs started": self.starts,
            "unclean ends": self.unclean,
            "seconds of the period": round(length, 3),
            "seconds watched by account": {name: round(seconds, 3) for name, seconds in watched.items()},
            "share of time watched by account": {
                name: round(seconds / length, 6) if length else None for name, seconds in watched.items()
            },
            "announcements without an answer": len(self.open),
            "entries stored late": self.late,
            "closes whose result is kept outside": self.unknown_results,
            "times not watched by account": {
                name: self.gaps(spans, min(self.times), max(self.times)) for name, spans in sorted(self.spans.items())
            },
            "times in memory only": [[begun, stored] for stored, begun in sorted(self.in_memory.items())],
            "times with no way to page": self.no_way,
            "seconds with no way to page": round(no_way, 3),
            "firings without a notification": len(self.fired - self.notified),
            "slowest delivery in seconds": round(self.slowest, 3),
            "restores declared": self.epochs,
        }
        return found


def result(keys: Keys) -> str:
    return "refused" if keys.get("refused") else "carried out"


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def text_of(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def union(spans: Iterable[tuple[datetime, datetime]], begin: datetime, end: datetime) -> float:
    """Seconds that are in any of the spans, within the period."""
    total, until = 0.0, begin
    for span in sorted(spans):
        first, last = max(span[0], until), min(span[1], end)
        if last > first:
            total, until = total + (last - first).total_seconds(), last
    return total


def read_anchors(paths: Iterable[str]) -> list[FoundAnchor]:
    """The anchors in files, as (chain, number, root). ValueError where a file has anything else."""
    found: list[FoundAnchor] = []
    for path in paths:
        text, at = Path(path).read_text(encoding="ascii"), 0
        while at < len(text):
            match = ANCHOR.match(text, at)
            if match is None:
                raise ValueError(f"{path} is no file of anchors")
            found.append((match[1], int(match[2]), match[3]))
            at = match.end()
    return found


def segments(folder: str) -> list[tuple[str, list[bytes]]]:
    """The segments of a log with their lines, in the order of their first numbers."""
    found = []
    for path in Path(folder).glob("*.jsonl"):
        lines = path.read_bytes().split(b"\n")
        head = HEAD.match(lines[0])
        found.append((int(head[2]) if head else 1 << 62, path.name, lines))
    return [(name, lines) for _, name, lines in sorted(found)]


def checkpoint_of(folder: str) -> bytes | None:
    """What is known of lines that retention has removed from a log."""
    path = Path(folder) / "kept.json"
    return path.read_bytes() if path.exists() else None


def kept_parts(parts: list[tuple[str, list[bytes]]], first: int) -> list[tuple[str, list[bytes]]]:
    """The segments without those in front of line `first`, which an interrupted removal has left."""
    heads = [HEAD.match(lines[0]) for _, lines in parts[1:]]
    ends = [*(first + 1 if head is None else int(head[2]) for head in heads), first + 1]
    return [part for part, end in zip(parts, ends, strict=True) if end > first] if parts else []


def check(
    statement: Keys, parts: list[tuple[str, list[bytes]]], anchors: list[FoundAnchor], checkpoint: bytes | None = None
) -> tuple[str, list[str], list[tuple[str, Any, Any]]]:
    """Compare a statement with a log and anchors: the verdict, why, and each figure as claimed and as found."""
    first, last = statement.get("first"), statement.get("last")
    if statement.get("format") != FORMAT or type(first) is not int or type(last) is not int:
        return "could not tell", [f"the statement has the format {statement.get('format')}"], []
    ends, begin = {last, *((first - 1,) if first > 1 else ())}, int(statement.get("lines_from", 1))
    log = Log({last, *(number for _, number, _ in anchors), *ends}, checkpoint)
    figures = PeriodFigures(first, last, begin)
    if begin > first:
        log.wrong.append(f"the period begins at line {first}, and the statement was made from line {begin} on")
    if log.first > begin:
        log.missing.append(f"the log begins at line {log.first}, and the statement was made from line {begin} on")
    parts = kept_parts(parts, log.first)
    for at, (name, lines) in enumerate(parts, start=1):
        if lines[-1] and at < len(parts):
            log.wrong.append(f"{name} ends with half a line, and another segment follows")
        for number, raw in enumerate(lines[:-1], start=1):
            keys = log.add(raw, f"{name}:{number}", starts_segment=number == 1)
            if keys is not None:
                figures.add(keys)
    log.finish()
    log.chain = log.chain or statement.get("chain")  # of a log that was emptied
    contradicted, unclear = list(log.wrong), list(log.missing)
    held_against_anchors(log, anchors, ends, contradicted, unclear)
    if not figures.times:
        unclear.append("the log has no entry of the period")
        return ("contradicted" if contradicted else "could not tell"), contradicted + unclear, []
    if figures.epochs:
        unclear.append(f"a restore was declared at line {figures.epochs[0]}")
    if log.roots.get(last) is not None and log.roots[last] != statement.get("root"):
        contradicted.append(f"the root at line {last} is {log.roots[last]}, and claimed is {statement.get('root')}")
    rows, claimed, values = [], statement.get("figures", {}), figures.values()
    for name in sorted({*values, *claimed}):
        rows.append((name, claimed.get(name), values.get(name)))
        if claimed.get(name) != values.get(name):
            (unclear if log.missing else contradicted).append(f"{name}: claimed and found differ")
    verdict = "contradicted" if contradicted else "could not tell" if unclear else "verified"
    return verdict, contradicted + unclear, rows


def held_against_anchors(
    log: Log, anchors: list[FoundAnchor], ends: set[int], contradicted: list[str], unclear: list[str]
) -> None:
    """Compare the roots with the anchors that were fetched, and require one at each end of the period."""
    roots: dict[tuple[str, int], str] = {}
    if anchors and not {chain for chain, _, _ in anchors} & {log.chain, *log.ended}:
        contradicted.append(
            f"no anchor is of chain {log.chain}: the log was written again, or is that of another store"
        )
    for chain, number, root in anchors:
        if roots.setdefault((chain, number), root) != root:
            contradicted.append(f"there are anchors of number {number} with different roots")
        if number > log.ended.get(chain, number):
            unclear.append(f"the anchor of number {number} covers what a restore has lost")
        elif chain != log.chain and chain not in log.ended:
            unclear.append(f"the anchor of number {number} is of another chain, {chain}; leave out those of the server")
        elif number > log.last:
            contradicted.append(f"the log ends at line {log.last}, and an anchor covers {number} lines")
        elif number in log.roots and log.roots[number] != root:
            contradicted.append(f"the log has other entries than the anchor of number {number}")
    ours = {number for chain, number, _ in anchors if chain == log.chain or number <= log.ended.get(chain, 0)}
    for number in sorted(ends - ours):
        unclear.append(f"you have no anchor of number {number}, at an end of the period")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Hold a statement against a record and anchors that you fetched.")
    parser.add_argument("statement")
    parser.add_argument("--log", required=True, help="the folder with the segments")
    parser.add_argument("--anchors", action="append", default=[], help="a file of anchors that you fetched")
    chosen = parser.parse_args(arguments)
    try:
        statement = json.loads(Path(chosen.statement).read_text(encoding="utf-8"))
        anchors, checkpoint = read_anchors(chosen.anchors), checkpoint_of(chosen.log)
        verdict, why, rows = check(statement, segments(chosen.log), anchors, checkpoint)
    except (OSError, ValueError) as error:
        verdict, why, rows = "could not tell", [str(error)], []
    except (AttributeError, LookupError, TypeError) as error:
        verdict, why, rows = "could not tell", [f"a file has other contents than it should: {error!r}"], []
    for name, claimed, found in rows:
        print(f"{'  ' if claimed == found else '! '}{name}")
        print(f"      claimed {json.dumps(claimed)}")
        print(f"      found   {json.dumps(found)}")
    print(f"verdict: {verdict}")
    for each in why:
        print(f"  {each}")
    return {"verified": 0, "contradicted": 1, "could not tell": 4}[verdict]


if __name__ == "__main__":
    sys.exit(main())
