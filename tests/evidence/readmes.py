"""The block of figures in each policy's README: its own kind of book, from the same runs as the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from killswitch.lab.campaign import CLOSE_ALL, IN_PROPORTION, NONE, STAGED
from killswitch.lab.summary import mean
from tests.evidence.gathering import CALM, Candidate, Case, Evidence
from tests.evidence.writing import FELL, FIGURES, MEANT, calm_cells, figure_cells, lost, percent, table_of

BEGIN, END = "<!-- evidence: written by make evidence -->", "<!-- end of evidence -->"


def insert(evidence: Evidence, policies: Path, *, command: str, date: str) -> None:
    """Replace the block in every README that has its marks. ValueError for a policy without them."""
    for folder in sorted({each.folder for each in evidence.tested} & MEANT.keys()):
        readme = policies / folder / "README.md"
        text = readme.read_text(encoding="utf-8")
        head, begun, rest = text.partition(BEGIN)
        _, ended, tail = rest.partition(END)
        if not begun or not ended:
            raise ValueError(f"{readme} has no place for its numbers: {BEGIN} … {END}")
        block = "\n".join(_block(evidence, folder, command, date)).strip()
        readme.write_text(f"{head}{BEGIN}\n\n{block}\n\n{END}{tail}", encoding="utf-8")


def _block(evidence: Evidence, folder: str, command: str, date: str) -> Iterator[str]:
    kind = MEANT[folder]
    crashes = [
        case for case in evidence.cases if case.part.member.kind == kind and not case.part.market.startswith(CALM)
    ]
    fallen = [case for case in crashes if case.unprotected.worst_drawdown >= FELL]
    mine = [each for each in evidence.tested if each.folder == folder]
    yield (
        f"{len(fallen)} {kind} books of gross 3 in real crashes, those that fell by {FELL:.0%} or more without "
        f"protection (`{command}`, {date}; what each word means, and other books: docs/evidence.md):"
    )
    yield ""
    rows: list[Sequence[str]] = [("no protection", *figure_cells(NONE, [case.unprotected for case in fallen]))]
    for each in mine:
        for rule, words in ((STAGED, ""), (IN_PROPORTION, ", its cuts in proportion"), (CLOSE_ALL, ", all at once")):
            runs = [case.protected[each.label, rule] for case in fallen]
            rows.append((f"{_name(each)}{words}", *figure_cells(rule, runs)))
    yield from table_of(("rule", *FIGURES), rows, words=1)
    yield from _price(evidence, kind, crashes, mine)


def _name(each: Candidate) -> str:
    return each.label.removeprefix(each.folder).strip(" ()") or "as shipped"


def _price(evidence: Evidence, kind: str, crashes: Sequence[Case], mine: Sequence[Candidate]) -> Iterator[str]:
    """The cost where nothing was wrong: the calm month, and books that would have recovered."""
    back = [case for case in crashes if case.unprotected.final_equity >= case.unprotected.start_equity]
    yield "What it costs: in a calm month, and where the book would have come back by itself."
    yield ""
    rows = []
    for each in mine:
        calm = [one for one in evidence.calm if (one.kind, one.label) == (kind, each.label)]
        fired = [case for case in back if case.protected[each.label, STAGED].firings]
        losses = [lost(case, case.protected[each.label, STAGED]) for case in fired]
        rows.append((
            _name(each), *(calm_cells(calm) if calm else ("-",) * 5),
            f"{len(fired)} of {len(back)}", percent(mean(losses) if losses else None),
        ))  # fmt: skip
    head = ("rule", "calm books", "fired in", "firings", "false", "mean cost", "fired and came back", "mean loss")
    yield from table_of(head, rows, words=1)
