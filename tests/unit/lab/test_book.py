"""Books: values are read exactly as written, and errors name their place."""

from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.lab.book import BookError, demo_book, read_book
from killswitch.lab.crash import COINS

GOOD = """\
name: b
accounts:
  - account: main
    market: swap
    currency: USDT
    equity: 0.1
    positions:
      - {symbol: A, side: long, notional: 37500.5, leverage: 5}
"""


def test_numbers_are_read_exactly(tmp_path: Path) -> None:
    """0.1 is a tenth, not its binary neighbour; the venue is `paper` by default."""
    (tmp_path / "b.yaml").write_text(GOOD)
    book = read_book(tmp_path / "b.yaml")
    (account,) = book.accounts
    assert (account.equity, account.venue) == (Decimal("0.1"), "paper")
    assert account.positions[0].notional == Decimal("37500.5")
    assert book.symbols == {"A"}


CASES = [
    ("a misspelt key", "leverage: 5", "leverag: 5",
     "8:52: accounts.0.positions.0.leverag: unknown key; known keys: symbol, side, notional, leverage"),
    ("a notional below zero", "notional: 37500.5", "notional: -1",
     "8:33: accounts.0.positions.0.notional: a number above 0 is needed"),
    ("an unknown side", "side: long", "side: both",
     "8:21: accounts.0.positions.0.side: one of 'long' or 'short' is needed"),
    ("no leverage where there is margin", ", leverage: 5", "", "3:5: accounts.0: A: leverage is missing"),
    ("leverage where there is none", "market: swap", "market: spot", "3:5: accounts.0: A: leverage means nothing"),
    ("a number that is none", "equity: 0.1", "equity: .nan", "6:5: accounts.0.equity: a finite number is needed"),
    ("a list that is none", "positions:\n", "positions: 3\n#", "7:5: accounts.0.positions: a list is needed"),
    ("broken YAML", "{symbol", "{{symbol", "9:1: expected"),
    ("no equity", "    equity: 0.1\n", "", "3:5: accounts.0.equity: is missing"),
    ("an unknown key of the book", "name:", "nme: x\nname:", "1:1: nme: unknown key; known keys: name, accounts"),
    ("no mapping at all", GOOD, "just text", ": keys with values are needed"),
    ("nothing", GOOD, "", ": keys with values are needed"),
    ("no account", GOOD, "name: x\naccounts: []\n", "there is no account"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "expected"), CASES, ids=[case[0] for case in CASES])
def test_a_mistake_is_reported_with_its_place(tmp_path: Path, name: str, old: str, new: str, expected: str) -> None:
    """The message has file, line, column and cause."""
    path = tmp_path / "b.yaml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(BookError) as caught:
        read_book(path)
    assert str(caught.value).startswith(f"{path}"), name
    assert expected in str(caught.value)


def test_a_symbol_held_twice_and_an_account_given_twice_are_refused(tmp_path: Path) -> None:
    """One-way mode has one position per symbol; an account name is unique."""
    path = tmp_path / "b.yaml"
    line = GOOD.splitlines()[-1]
    path.write_text(GOOD + line + "\n")
    with pytest.raises(BookError, match="A is held twice"):
        read_book(path)
    path.write_text(GOOD + GOOD.split("accounts:\n")[1])
    with pytest.raises(BookError, match="account main is given twice"):
        read_book(path)


def test_an_unreadable_file_is_a_book_error(tmp_path: Path) -> None:
    """The file is missing, or not UTF-8."""
    with pytest.raises(BookError, match="No such file"):
        read_book(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(BookError, match="not UTF-8"):
        read_book(tmp_path / "b.yaml")


def test_the_real_books_are_read(shared: Path) -> None:
    """The shared books have the sums that their comments state: gross 3 and net 0."""
    (account,) = read_book(shared / "data/books/hedged-2021-05-19.yaml").accounts
    signed = [p.notional if p.side == "long" else -p.notional for p in account.positions]
    assert (sum(map(abs, signed)) / account.equity, sum(signed)) == (3, 0)


def test_the_demo_book_holds_the_generated_symbols() -> None:
    """Eight symbols, all of them generated, gross 3."""
    book = demo_book()
    assert book.symbols == {coin.symbol for coin in COINS}
    (account,) = book.accounts
    assert sum(p.notional for p in account.positions) / account.equity == 3
