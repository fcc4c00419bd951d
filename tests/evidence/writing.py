"""The page: first what to choose and what it costs, then tables, then how they were made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.evidence.crashes import FELL
from tests.evidence.gathering import REFERENCE
from tests.evidence.markets import CALM_SPANS, GROSS, INVESTED, KINDS, STEP
from tests.evidence.ordinary import BOUNDS, HORIZON
from tests.evidence.players import PLAYERS, V6
from tests.evidence.results import DRAWS, PartResult, percent
from tests.evidence.sensitivity import SEEDS
from tests.evidence.verdicts import failures, first_table

CHOOSER = """\
**Which set to begin with.** Hedged books: cuts by component risk (`one-exchange-hedged`, or `several-exchanges` for
legs at several). Directional and concentrated books: close at the first real fall (`one-exchange-directional`). All of
them: a limit over 48 hours as well, which these sets have. `ksctl init` writes them. Where a deeper fall costs more
than a false alarm: their variant `tight`.
"""
"""The recommendation, before the tables that it comes from."""
SECONDS = STEP // 1_000_000
BARS = f"Bars: of a minute as recorded, of three and five minutes walked in {SECONDS} s."
HOURS = round(HORIZON.total_seconds() / 3600)
Results = Mapping[str, PartResult]


def rendered(results: Results) -> str:
    """The page as Markdown."""
    return "\n".join(_lines(results)).rstrip() + "\n"


def _lines(results: Results) -> Iterator[str]:
    yield from _head(results)
    yield from _by_kind(results)
    yield from _by_market(results)
    yield from _ordinary(results)
    yield from _walk(results)
    yield from _scaled(results)
    yield from _bridge(results)
    yield from _crash_details(results)
    yield from _methods(results)


def _head(results: Results) -> Iterator[str]:
    yield "# Evidence"
    yield ""
    yield CHOOSER
    yield (
        f"Measured over {results['crashes'].notes['books']} books of gross {GROSS} (spot: {INVESTED}) in six "
        f"recorded crashes, walked in {SECONDS} s where bars are coarser than a minute, and over "
        f"{results['calm'].numbers['spans']:.0f} ordinary spans of {results['calm'].numbers['days']:.0f} days. "
        f"*Falsely*: {HOURS} hours later the book without protection had recovered; brackets are 95% intervals, in "
        "percent."
    )
    yield ""
    yield from first_table(results).lines()
    yield "What it costs, and where it fails:"
    yield ""
    yield from failures(results)
    yield (
        "- The thresholds of the recommended sets were chosen with all six crashes in view, those of directional books "
        "with the calm month as well; what a choice beforehand would have done is [below]"
        "(#thresholds-chosen-on-earlier-crashes-judged-on-later-ones). Spot and several exchanges were not walked "
        "forward; `futures-drawdown` watches no spot account."
    )
    yield (
        "- Six crashes are six price paths: books of one crash share theirs, so that all intervals here are "
        "narrower than the truth. A recording of a crash rewards cutting sooner and more, always: protection buys "
        "the tail, and its premium is what a book loses that would have come back "
        "([below](#what-protection-costs-when-the-book-would-have-come-back))."
    )
    yield ""


def _by_kind(results: Results) -> Iterator[str]:
    yield "## Each kind of book under each policy"
    yield ""
    yield (
        "*staged*: the set as it is; *close-all*: everything at its first trigger; *independent*: rules of other "
        "programs, played by an implementation of their own ([methods](#methods)). Bars: "
        f"{results['crashes'].notes['bars']}. Only books whose worst drawdown without protection was at least "
        f"{FELL:.0%}."
    )
    yield ""
    for kind in KINDS:
        table = results["crashes"].tables.get(f"kind {kind}")
        if table is not None:
            books = results["crashes"].numbers[f"{kind}/books"]
            yield f"### {kind.capitalize()} books ({books:.0f})"
            yield ""
            yield from table.lines()


def _by_market(results: Results) -> Iterator[str]:
    yield "## Crash by crash"
    yield ""
    yield f"The recommended sets against no protection and `{REFERENCE}`."
    yield ""
    yield from results["crashes"].tables["by market"].lines()


def _ordinary(results: Results) -> Iterator[str]:
    calm = results["calm"]
    yield "## Ordinary days"
    yield ""
    yield (
        f"What came before each crash, up to the peak that it fell from ({calm.numbers['days before crashes']:.1f} "
        f"days), and a month without a crash in {CALM_SPANS} spans. The month has two symbols only: each of its "
        "hedged books is one of them long and the other short, many books but one bet. Wanted: at most "
        f"{BOUNDS['hedged']:.0%} of hedged and {BOUNDS['directional']:.0%} of other books fire falsely. Shares of "
        "books, with 95% intervals; bars: the last table."
    )
    yield ""
    for kind in KINDS:
        yield f"### {kind.capitalize()} books on ordinary days"
        yield ""
        yield from calm.tables[f"kind {kind}"].lines()
    yield "### The recommended sets, span by span"
    yield ""
    yield from calm.tables["spans"].lines()


def _walk(results: Results) -> Iterator[str]:
    yield "## Thresholds chosen on earlier crashes, judged on later ones"
    yield ""
    yield (
        "Everything is closed at the first fall within 15 minutes, or within 48 hours: the measures of the recommended "
        "sets that fire first. Before each crash, of the pairs of thresholds that fired falsely in no more of the "
        "books of the earlier folders than is wanted (the pair that fired least, where none was): the one with the "
        "smallest mean drawdown there. *Earlier* is what it was chosen by, *later* what it then did: the difference "
        "is what a table of known crashes promises too much. *As shipped* has what the recommended set closes at, "
        "which was chosen with all of these crashes in view. *Fires falsely*: before the crash of the same folder."
    )
    yield ""
    yield from results["walk"].tables["walk"].lines()
    yield "### What fewer false alarms cost"
    yield ""
    yield (
        "The pair with the smallest mean drawdown over all folders at each share of false firings, and the recommended "
        "set, closed at once. Nobody could have chosen these pairs beforehand: they bound what thresholds of these two "
        f"kinds can do, and where a row is missing no pair was that quiet. Bars: {results['walk'].notes['bars']}."
    )
    yield ""
    yield from results["walk"].tables["frontier"].lines()


def _scaled(results: Results) -> Iterator[str]:
    found = results["scaled"]
    yield "## Thresholds scaled by the expected move"
    yield ""
    yield (
        "One rule, close everything at a fall within an hour: at a multiple of the book's expected move of an hour "
        "(`equity.expected_move`, 12 hours of five-minute returns), and at the lowest fixed threshold that fires "
        "falsely in no more books before the crashes. Over all three kinds together the scaled rule had the smaller "
        f"mean drawdown in {found.numbers['better']:.0f} of {found.numbers['compared']:.0f} pairs. Bars: "
        f"{found.notes['bars']}."
    )
    yield ""
    yield from found.tables["pairs"].lines()


def _bridge(results: Results) -> Iterator[str]:
    found = results["bridge"]
    numbers, stem = found.numbers, f"coarse/hedged/{V6}"
    yield "## How far the walk inside the bars moves the results"
    yield ""
    yield (
        f"On bars as recorded, `confirm: 2m` is a bar. The hedged 95th percentile of the levels of `{REFERENCE}` "
        f"(`{V6}`) is {percent(numbers[f'{stem}/recorded'])} on them, and {percent(numbers[f'{stem}/low'])} to "
        f"{percent(numbers[f'{stem}/high'])} walked in {SECONDS} s with {len(SEEDS)} seeds: differences of a few "
        f"points between rows of this page mean nothing. Bars of: {found.notes['coarse']}."
    )
    yield ""
    yield from found.tables["coarse"].lines()
    yield (
        "The same method where the truth is known: bars of a minute, joined to five minutes, and walked in minutes "
        "again. The first column of each figure is the truth, the second what a test on five-minute bars says, and the "
        f"last what the method makes of them. Bars of: {found.notes['truth']}."
    )
    yield ""
    yield from found.tables["truth"].lines()


def _crash_details(results: Results) -> Iterator[str]:
    tables = results["crashes"].tables
    if tables["splits"].rows:
        yield "## The four-long/four-short books"
        yield ""
        yield (
            "However little they fell. *Both sides in turn*: one side was closed, and when it was gone the other was "
            "closed alone (a fall, then a rebound that squeezes the hedge)."
        )
        yield BARS
        yield ""
        yield from tables["splits"].lines()
    yield "## At equal gross"
    yield ""
    yield (
        "The same triggers and the same cuts of gross, taken where the policy takes them (*staged*) or over all "
        "positions alike (*in proportion*). What is better here is better for what it chooses, not for cutting "
        "more. (The book left by the one is not the book left by the other, so later triggers may differ.)"
    )
    yield BARS
    yield ""
    yield from tables["equal gross"].lines()
    yield "## What protection costs when the book would have come back"
    yield ""
    yield (
        "Books that without protection ended at or above where they began, whatever lay between, and in which the "
        "policy fired: final equity lost to protection, in percent of the start."
    )
    yield BARS
    yield ""
    yield from tables["came back"].lines()


def _methods(results: Results) -> Iterator[str]:
    yield f"""## Methods

Each part was made by its own command, and can be made again alone; `make evidence` prints what changed on this page.
The bars are not part of this repository. The same bars, seed and counts make the same results.

| part | command |
| --- | --- |
{chr(10).join(f"| {name} | `{found.command}` |" for name, found in sorted(results.items()))}

- **Books**: 10,000 of equity, leverage 5, seeded; at 100,000 thin symbols delay the close (the first hedged book of
  2020 fell by 14.6% instead of 12.8% with `one-exchange-directional`). *hedged* is dollar-neutral with lognormal
  weights, *directional* all on one side or 80/20, *concentrated* has 60–80% in one symbol, *split* is a sample of
  the books of four equal longs and four equal shorts where there are eight symbols; *several* has the positions of
  *hedged* with the longs at one exchange and the shorts at another, half of the equity at each; *spot* holds coins
  for {INVESTED:.0%} of its equity. {results["crashes"].notes["missing"]}
- **Bars**: coarser ones than a minute are walked in {SECONDS} s: Brownian bridges from open to close with a
  variance by the bar's range (Parkinson 1980), driven by noise with the rank correlations of the recorded returns,
  and stretched to the recorded high and low (`tests/evidence/bridging.py`). Correlations of the steps are 0.05 to
  0.2 lower than those of the bars.
- **Venue**: taker fee 0.05%, half spread 0.01%, linear impact (0.1 × the share of the bar's volume), at most 10% of
  a bar's volume, liquidation at a maintenance margin of 0.5% for a fee of 0.5%. No funding, no outages, no late
  orders: a real crash is worse.
- **Figures**: worst drawdown is from a peak of equity, at bar closes. *Over 20%* is the share of books in which it
  was deeper. *Gross kept* is the mean gross over the run against that at the start. Intervals of shares are
  Wilson's (1927), of means the percentiles of {DRAWS} seeded bootstrap samples of books.
- **Ordinary**: a crash begins at the peak before the largest fall within 24 hours of the equally weighted market. A
  firing that closed nothing is not counted. *Falsely* asks the first one only.
- **Other programs** ({"; ".join(PLAYERS)}): `tests/evidence/players.py`, which shares no line with the product.
  freqtrade counts a stop-loss on the stake with its leverage, so that 10% is a move of 2% here; its protections
  lock entries and close nothing. The levels of v6 are those of `tests/oracle/naive.py`; that its row is near
  `{REFERENCE}` checks both.
- **Not measured**: funding, outages, books of more than eight symbols, books that trade on while they are
  protected, and any crash that is not in these folders."""
