"""Attacks: what the switch must close in spite of."""
