"""The effects of a decision: their order, the part that concerns an account, and their record."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal

import msgspec
import pytest
from msgspec import Struct

from killswitch.model import effects
from killswitch.model.decision import Decision, Intent, decode_decision, encode_decision, with_effects
from killswitch.model.effects import (
    Cancel,
    Cancels,
    EffectKind,
    Lock,
    LockOrder,
    Orders,
    Reversal,
    UnknownEffectError,
    accounts_of,
    expiry_of,
    in_record_order,
    kind_of,
    merge_effects,
    only_on,
    sizes_of,
    with_expiry,
)
from killswitch.model.registry import RegistryError, require_same_keys
from tests.worlds import START, after


class MadeUpEffect(Struct, frozen=True, tag="mark", tag_field="kind"):
    """A kind of effect that the product does not have."""

    until: datetime | None = None


MARK: EffectKind[MadeUpEffect] = EffectKind(
    effect=MadeUpEffect, rank=99, noun="mark", size=lambda _: 1, text=lambda _: "make a mark",
    merged=lambda one, _: one,
    reversal=Reversal(until=lambda mark: mark.until, ending=lambda _, at: MadeUpEffect(at)),
)  # fmt: skip


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product with that kind registered."""
    monkeypatch.setattr(effects, "EFFECTS", (*effects.EFFECTS, MARK))


def intent(account: str = "main", symbol: str = "BTC", after: int | None = None) -> Intent:
    purpose = "reduce" if after is None else "hop"
    return Intent(account, symbol, "long", "sell", Decimal(1), Decimal(0), True, 1, purpose=purpose, after=after)  # type: ignore[arg-type]  # one of the two above


LOCK = LockOrder("account/main", "reduce_only", after(minutes=5))
CANCELS = (Cancel("main", "BTC", "1", "entry"), Cancel("other", "BTC", "2", "all"))


def decision(**more: object) -> Decision:
    values: dict[str, object] = {
        "id": "d1", "as_of": START, "policy": "p", "policy_set": "sha256:0", "scope": "account/main",
        "mode": "enforce", "stage": "trim", "level": 2, "previous_level": 0,
    }  # fmt: skip
    return Decision(**{**values, **more})  # type: ignore[arg-type]  # by name, as above


def test_effects_are_in_the_order_in_which_they_are_performed() -> None:
    """The lock first, so that no new risk is taken on, then cancels, then orders; absent kinds are omitted."""
    full = decision(intents=(intent(),), cancels=CANCELS, lock=LOCK)
    assert full.effects == (Lock(LOCK), Cancels(CANCELS), Orders((intent(),)))
    assert decision().effects == ()
    assert in_record_order(full.effects) == (Orders((intent(),)), Cancels(CANCELS), Lock(LOCK))
    sizes = sizes_of(full.effects)
    assert {key: size for key, size in sizes.items() if size} == {"orders": 1, "cancels": 2, "lock": 1}
    assert set(sizes_of(()).values()) == {0}


def test_accounts_are_those_of_orders_and_cancels_as_the_record_lists_them() -> None:
    """Each once; a lock is of a scope, and affects no account by itself."""
    full = decision(intents=(intent("b"), intent("a"), intent("b")), cancels=CANCELS, lock=LOCK)
    assert full.accounts == full.accounts_at_work == ("b", "a", "main", "other")
    assert accounts_of((Lock(LOCK),)) == ()


def test_the_part_of_one_account_keeps_the_indices_of_second_hops() -> None:
    """A removed intent takes its hops along; the index in a kept one is computed again."""
    orders = Orders((intent("a"), intent("b"), intent("b", "C", after=1), intent("a", "C", after=0)))
    found = only_on((Lock(LOCK), Cancels(CANCELS), orders), ["b", "other"])
    assert found == (Lock(LOCK), Cancels(CANCELS[1:]), Orders((intent("b"), intent("b", "C", after=0))))


def test_effects_of_one_kind_are_merged() -> None:
    """Of locks the stricter mode and the later end; of cancels each once, in the order of the longer; orders never."""
    endless = LockOrder("account/main", "all", None)
    assert merge_effects((Lock(LOCK), Lock(endless))) == (Lock(endless),)
    assert merge_effects((Cancels(CANCELS[:1]), Cancels(CANCELS))) == (Cancels(CANCELS),)
    other = Cancel("main", "ETH", "1", "entry")
    assert merge_effects((Cancels((other,)), Cancels(CANCELS))) == (Cancels((*CANCELS, other)),)
    with pytest.raises(ValueError, match="one effect of orders"):
        merge_effects((Orders((intent(),)), Orders((intent("b"),))))


def test_a_reversible_effect_has_an_end() -> None:
    """A lock can expire; orders cannot."""
    assert expiry_of(Lock(LOCK)) == after(minutes=5)
    assert with_expiry(Lock(LOCK), START) == Lock(LockOrder("account/main", "reduce_only", START))
    assert expiry_of(Orders((intent(),))) is None
    with pytest.raises(UnknownEffectError, match="cannot be reversed"):
        with_expiry(Cancels(CANCELS), START)


def test_a_record_without_further_effects_has_no_key_for_them() -> None:
    """The three original keys, in the original order; what is read back is the same."""
    full = decision(intents=(intent(),), cancels=CANCELS, lock=LOCK)
    record = json.loads(encode_decision(full))
    assert "effects" not in record
    assert "further" not in record
    assert [key for key in record if key in ("intents", "cancels", "lock")] == ["intents", "cancels", "lock"]
    assert decode_decision(encode_decision(full)) == full
    assert with_effects(decision(), full.effects) == full


@pytest.mark.usefixtures("marked")
def test_a_further_effect_has_a_key_of_its_own() -> None:
    """`effects` of the record; it is performed by its rank, counted, and withdrawn like a lock."""
    full = with_effects(decision(lock=LOCK), (MadeUpEffect(), Lock(LOCK)))
    assert json.loads(encode_decision(full))["effects"] == [{"kind": "mark", "until": None}]
    assert full.effects == (Lock(LOCK), MadeUpEffect())
    assert sizes_of(full.effects)["mark"] == 1
    ended = with_effects(decision(kind="suspicion"), (MadeUpEffect(START),))
    assert ended.is_withdrawal
    assert not with_effects(decision(kind="suspicion"), (MadeUpEffect(START), Lock(LOCK))).is_withdrawal


def test_an_unknown_effect_is_not_decoded() -> None:
    """For a record that no kind can decode, no effect is guessed and none is left out."""
    record = json.loads(encode_decision(decision()))
    for further in ([{"kind": "mark"}], [{"kind": "lock", "order": json.loads(msgspec.json.encode(LOCK))}]):
        with pytest.raises(msgspec.ValidationError):
            decode_decision(json.dumps({**record, "effects": further}))
    with pytest.raises(UnknownEffectError):
        kind_of(MadeUpEffect())  # type: ignore[arg-type]  # no member of the union


def test_a_registry_is_refused_with_the_key_and_what_lacks_it() -> None:
    """A missing key, an additional one, a duplicate."""
    require_same_keys("KINDS", ["a", "b"], "Effect", ["b", "a"])
    with pytest.raises(RegistryError, match=r"^`b` is in Effect, and KINDS lacks it$"):
        require_same_keys("KINDS", ["a"], "Effect", ["a", "b"])
    with pytest.raises(RegistryError, match=r"^`c` is in KINDS, and Effect lacks it$"):
        require_same_keys("KINDS", ["a", "c"], "Effect", ["a"])
    with pytest.raises(RegistryError, match=r"^`a` is in KINDS twice$"):
        require_same_keys("KINDS", ["a", "a"], "Effect", ["a"])
