"""The block of figures in each policy's README: its own kind of book, from the same runs as the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

from killswitch.lab.campaign import CLOSE_ALL, IN_PROPORTION, NONE, STAGED
from tests.evidence.gathering import CALM, Candidate, Case, Evidence
from tests.evidence.writing import FELL, FIGURES, KINDS, MEANT, calm_cells, figure_cells, lost, percent, table_of

BEGIN, END = "<!-- evidence: written by make evidence -->", "<!-- end of evidence -->"


def insert(evidence: Evidence, policies: Path, *, command: str, date: str) -> None:
    """Replace the block in every README that has its marks. ValueError for a policy for a kind of book without them."""
    for folder in sorted({each.folder for each in evidence.tested}):
        readme = policies / folder / "README.md"
        text = readme.read_text(encoding="utf-8") if folder in MEANT or readme.exists() else ""
        head, begun, rest = text.partition(BEGIN)
        _, ended, tail = rest.partition(END)
        if begun and ended:
            block = "\n".join(_block(evidence, folder, command, date)).strip()
            readme.write_text(f"{head}{BEGIN}\n\n{block}\n\n{END}{tail}", encoding="utf-8")
        elif folder in MEANT:
            raise ValueError(f"{readme} has no place for its numbers: {BEGIN} … {END}")


def _block(evidence: Evidence, folder: str, command: str, date: str) -> Iterator[str]:
    """The results in crashes, for the kind of book that the policy is for, and what it costs elsewhere."""
    crashes = [case for case in evidence.cases if not case.part.market.startswith(CALM)]
    mine = [each for each in evidence.tested if each.folder == folder]
    made = f"`{command}`, {date}; what each word means, and other books: docs/evidence.md"
    if folder not in MEANT:
        yield f"Books of gross 3 ({made})."
        yield ""
        yield from _price(evidence, _calm_kinds(evidence), crashes, mine)
        return
    kind = MEANT[folder]
    of_kind = [case for case in crashes if case.part.member.kind == kind]
    fallen = [case for case in of_kind if case.unprotected.worst_drawdown >= FELL]
    yield (
        f"{len(fallen)} {kind} books of gross 3 in real crashes, those that fell by {FELL:.0%} or more without "
        f"protection ({made}):"
    )
    yield ""
    rows: list[Sequence[str]] = [("no protection", *figure_cells(NONE, [case.unprotected for case in fallen]))]
    for each in mine:
        for rule, words in ((STAGED, ""), (IN_PROPORTION, ", its cuts in proportion"), (CLOSE_ALL, ", all at once")):
            runs = [case.protected[each.label, rule] for case in fallen]
            rows.append((f"{_name(each)}{words}", *figure_cells(rule, runs)))
    yield from table_of(("rule", *FIGURES), rows, words=1)
    kinds = [kind] if kind in _calm_kinds(evidence) else [kind, *_calm_kinds(evidence)]
    yield from _price(evidence, kinds, crashes, mine)


def _calm_kinds(evidence: Evidence) -> list[str]:
    return [kind for kind in KINDS if any(one.kind == kind for one in evidence.calm)]


_NEEDS = {"split": "four long and four short need eight symbols, and its bars are of fewer"}
"""Kind of book → why a market may not have it."""


def _name(each: Candidate) -> str:
    return each.label.removeprefix(each.folder).strip(" ()") or "as shipped"


def _price(
    evidence: Evidence, kinds: Sequence[str], crashes: Sequence[Case], mine: Sequence[Candidate]
) -> Iterator[str]:
    """The cost where nothing was wrong: the calm month, and books that would have recovered."""
    yield "What it costs: in a calm month, and where the book would have come back by itself."
    absent = [kind for kind in kinds if kind not in _calm_kinds(evidence)]
    if absent:
        why = _NEEDS.get(absent[0], "it has too few symbols")
        yield (
            f"There is no {absent[0]} book of the calm month ({why}), which `-` says, so the other kinds are here too."
        )
    yield ""
    rows = []
    for each in mine:
        for kind in kinds:
            back = [
                case
                for case in crashes
                if case.part.member.kind == kind and case.unprotected.final_equity >= case.unprotected.start_equity
            ]
            calm = [one for one in evidence.calm if (one.kind, one.label) == (kind, each.label)]
            fired = [case for case in back if case.protected[each.label, STAGED].firings]
            losses = [lost(case, case.protected[each.label, STAGED]) for case in fired]
            rows.append((
                _name(each) + (f", {kind} books" if len(kinds) > 1 else ""),
                *(calm_cells(calm) if calm else ("-",) * 5),
                f"{len(fired)} of {len(back)}", percent(mean(losses) if losses else None),
            ))  # fmt: skip
    head = ("rule", "calm books", "fired in", "firings", "false", "mean cost", "fired and came back", "mean loss")
    yield from table_of(head, rows, words=1)
