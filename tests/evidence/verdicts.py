"""What the numbers say of each recommended set: the first table of the page, and where a recommendation fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from tests.evidence.gathering import RECOMMENDED, REFERENCE
from tests.evidence.ordinary import BOUNDS
from tests.evidence.results import PageTable, PartResult, percent, share_text

NAMES = {
    "hedged": "hedged, at one exchange",
    "directional": "all or nearly all on one side",
    "concentrated": "mostly one position",
    "several": "hedges over two exchanges",
    "spot": "spot, 90% in coins",
}
SPANS = {"before": "before the crashes", "month": "in the calm month"}


class Requirement(Struct, frozen=True):
    """One of the requirements of a recommendation: whether it holds, and the sentence where it does not."""

    kind: str
    holds: bool
    sentence: str


def first_table(results: Mapping[str, PartResult]) -> PageTable:
    """The chooser with what each set was measured with, and what it costs."""
    numbers = results["crashes"].numbers
    rows = []
    for kind, name in RECOMMENDED.items():
        none, ours, theirs = (
            {each: numbers.get(f"{kind}/{label}/{each}") for each in ("mean", "p95", "final")}
            for label in ("none", name, REFERENCE)
        )
        rows.append((
            NAMES[kind], name,
            f"{percent(none['mean'])} → {percent(ours['mean'])}", f"{percent(none['p95'])} → {percent(ours['p95'])}",
            f"{percent(theirs['mean'])}, {percent(theirs['p95'])}",
            f"{percent(none['final'])} → {percent(ours['final'])}",
            *(_falsely(results["calm"], kind, name, spans) for spans in SPANS),
        ))  # fmt: skip
    head = (
        "the book", "begin with", "mean drawdown, without → with it", "95th percentile", f"{REFERENCE}: mean, 95th",
        "final equity", *(f"fires falsely {words}" for words in SPANS.values()),
    )  # fmt: skip
    return PageTable(head, tuple(rows), 2)


def _falsely(calm: PartResult, kind: str, name: str, spans: str) -> str:
    stem = f"{kind}/{name}/{spans}"
    return share_text(round(calm.numbers[f"{stem}/false"]), round(calm.numbers[f"{stem}/books"]))


def requirements(results: Mapping[str, PartResult]) -> Iterator[Requirement]:
    """Smaller mean and 95th percentile than the reference, in all folders and out of sample, and few false firings."""
    crashes, walk = results["crashes"].numbers, results["walk"].numbers
    for kind, name in RECOMMENDED.items():
        for figure, words in FIGURES.items():
            ours, theirs = (crashes.get(f"{kind}/{label}/{figure}") for label in (name, REFERENCE))
            if ours is not None and theirs is not None:
                yield _smaller(kind, f"{words} over all crash folders", ours, theirs, REFERENCE)
            later, reference = (walk.get(f"{kind}/{each}/{figure}") for each in ("later", "reference"))
            if later is not None and reference is not None:
                yield _smaller(kind, f"{words} in later crashes, chosen on earlier ones", later, reference, "v6-like")
        if f"{kind}/later/false" in walk:
            share = walk[f"{kind}/later/false"]
            yield _rarely(
                kind,
                share,
                f"thresholds chosen on earlier crashes fire falsely in {share:.0%} of books before later ones",
            )
        for spans, words in SPANS.items():
            share = false_share(results, kind, name, spans)
            yield _rarely(kind, share, f"it fires falsely in {share:.0%} of the books {words}")


FIGURES = {"mean": "mean drawdown", "p95": "95th percentile"}


def false_share(results: Mapping[str, PartResult], kind: str, name: str, spans: str) -> float:
    """The share of the books of ordinary spans in which the set fires falsely."""
    false, books = (results["calm"].numbers[f"{kind}/{name}/{spans}/{each}"] for each in ("false", "books"))
    return false / books if books else 0.0


def _rarely(kind: str, share: float, words: str) -> Requirement:
    return Requirement(kind, share <= BOUNDS[kind], f"{words}, wanted: at most {BOUNDS[kind]:.0%}")


def _smaller(kind: str, words: str, ours: float, theirs: float, reference: str) -> Requirement:
    return Requirement(kind, ours < theirs, f"{words} {ours:.1%}, `{reference}` {theirs:.1%}")


def failures(results: Mapping[str, PartResult]) -> Iterator[str]:
    """A line for each kind: what holds, where the recommendation fails, and which other set did better."""
    found = list(requirements(results))
    for kind, name in RECOMMENDED.items():
        mine = [each for each in found if each.kind == kind]
        failed = [each.sentence for each in mine if not each.holds]
        said = f"fails: {'; '.join(failed)}" if failed else f"all {len(mine)} requirements hold"
        best = smallest(results, kind)
        is_own = best.partition(" (")[0] == name
        other = "" if is_own else f" Smallest 95th percentile here: {_figures_of(results, kind, best)}."
        if any(REFERENCE in each for each in failed):
            other = f" Against it: {_figures_of(results, kind, REFERENCE)}.{other}"
        yield f"- **{kind}, `{name}`**: {said}.{other}"
        yield from _tighter(results, kind, name)


def smallest(results: Mapping[str, PartResult], kind: str) -> str:
    """The compared set with the smallest 95th percentile drawdown over the books of this kind."""
    numbers = results["crashes"].numbers
    labels = [key.split("/")[1] for key in numbers if key.startswith(f"{kind}/") and key.endswith("/p95")]
    return min((label for label in labels if label != "none"), key=lambda label: numbers[f"{kind}/{label}/p95"])


def _tighter(results: Mapping[str, PartResult], kind: str, name: str) -> Iterator[str]:
    """The variant of a set that falls less, and what that costs."""
    numbers, label = results["crashes"].numbers, f"{name} (tight)"
    if f"{kind}/{label}/mean" not in numbers:
        return
    yield f"- Its variant `tight`: {_figures_of(results, kind, label)}."


def _figures_of(results: Mapping[str, PartResult], kind: str, label: str) -> str:
    numbers = results["crashes"].numbers
    mean, high = (numbers[f"{kind}/{label}/{each}"] for each in FIGURES)
    return f"`{label}` (mean {mean:.1%}, 95th {high:.1%}, falsely {_falsely(results['calm'], kind, label, 'before')})"
