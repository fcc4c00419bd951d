"""Explanation of P&L: which part of a change of equity prices, trades and ledger rows explain, and what the rest is."""
