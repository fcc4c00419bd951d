"""The random generator, compared with its authors' reference numbers."""

from decimal import Decimal

from killswitch.market.matching import SplitMix64


def test_it_draws_the_reference_numbers_of_its_seed() -> None:
    """Seed 1234567 draws what the public-domain C code of Vigna (prng.di.unimi.it/splitmix64.c) draws."""
    generator = SplitMix64(1234567)
    assert [generator.next() for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_a_drawn_number_is_inside_its_bounds() -> None:
    """A number from [low, high) is never outside of it."""
    generator = SplitMix64(3)
    drawn = [generator.between(Decimal("0.5"), Decimal("1.5")) for _ in range(1000)]
    assert all(Decimal("0.5") <= number < Decimal("1.5") for number in drawn)
    assert max(drawn) > Decimal("1.4") and min(drawn) < Decimal("0.6")
