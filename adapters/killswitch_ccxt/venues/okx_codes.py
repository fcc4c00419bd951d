"""OKX's codes of refusal (https://www.okx.com/docs-v5/en/#error-code), in the words of closing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from killswitch_ccxt.errors import DENIED, DOWN, GONE, LIMITED, MODE_CHANGED, UNKNOWN, Meaning, rejected
from killswitch_ccxt.hearing import Answer


def _each(meaning: Meaning, *codes: int) -> dict[str, Meaning]:
    return {str(code): meaning for code in codes}


CODES: Final[Mapping[str, Meaning]] = {
    # Nothing to reduce: no position, or one that has turned meanwhile
    **_each(rejected("already_flat"), 51023, 51169, 51170, 59216),
    **_each(rejected("below_minimum"), 51007, 51020, 51118, 51120),
    **_each(rejected("above_maximum"), 51004, 51005, 51101, 51108, 51201, 51202, 51203),
    # What rests takes the place of what would close
    **_each(rejected("blocked_by_order"), 51112, 51115, 51117, 51125, 51126, 51134),
    # Price limits, also those of trigger prices against the last price
    **_each(rejected("price_band"), 51006, 51031, 51116, 51122, 51135, 51136, 51137, 51138, 51250, 51252,
            51277, 51278, 51279, 51280),
    # Not now: listing, suspension, settlement, auction, frozen by ADL or liquidation, cooling off
    **_each(rejected("market_closed"), 50017, 50018, 50019, 50020, 50021, 50022, 50023, 51001, 51021, 51022, 51027,
            51028, 51029, 51030, 51109, 51110, 51124, 54000, 54011, 54072, 54094),
    **_each(rejected("insufficient_margin"), 51008, 51119, 51127, 51131, 51502, 59200),
    **_each(rejected("duplicate_client_order_id"), 51011, 51016, 51065),
    # The order itself: parameters, lot size
    **_each(rejected("other"), 51000, 51121),
    # The account may not, whatever the key may
    **_each(rejected("permission"), 4088, 50027, 51009, 51010, 51024, 51155),
    # The key, its passphrase, its signature, its addresses, its permissions
    **_each(DENIED, 50007, 50008, 50030, 50100, 50101, 50103, 50104, 50105, 50106, 50107, 50110, 50111, 50113, 50114,
            50119, 50120, 60004, 60005, 60007, 60009, 60011, 60024, 60032),
    **_each(LIMITED, 50011, 50061, 51113, 58102, 60014),
    # Surely not taken: maintenance, API switched off, a request that came too late to be looked at
    **_each(DOWN, 50001, 50005, 50102, 50112, 60006, 60015, 64008),
    # "does not indicate success or failure", busy, system error, a request or an order that timed out
    **_each(UNKNOWN, 50004, 50013, 50026, 51054, 51149, 63999),
    # Words for codes that need their text
    "posSide": MODE_CHANGED,
    "unsure": UNKNOWN,
    **_each(GONE, 51400, 51401, 51402, 51405, 51410, 51503, 51509, 51510, 51603),
}  # fmt: skip
FRAMES: Final = frozenset({"0", "1", "2"})
"""Outer codes that say no more than that the rows do."""


_UNSURE: Final = ("timed out", "timeout", "try again later", "system")
"""Words of a refusal with a code that nobody knows here, which do not say that nothing was done."""


def said(code: object, text: object) -> tuple[str, ...]:
    """A code and what its text adds, the more telling first. 51000 is any parameter: of the position side it says that
    the account counts positions in the other way."""
    number, words = str(code or ""), str(text or "").lower()
    if number in FRAMES or not number:
        return ()
    if number == "51000" and "posside" in words:
        return ("posSide", number)
    if number not in CODES and any(part in words for part in _UNSURE):
        return (number, "unsure")
    return (number,)


def codes_in(answer: Answer) -> Iterable[str]:
    """The codes in a refusal: of its rows, then its own."""
    body: Any = answer.body
    if not isinstance(body, Mapping):
        return ()
    data = body.get("data")
    rows = [it for it in data if isinstance(it, Mapping)] if isinstance(data, list) else []
    told = [said(it.get("sCode"), it.get("sMsg")) for it in rows]
    return tuple(code for each in (*told, said(body.get("code"), body.get("msg"))) for code in each)
