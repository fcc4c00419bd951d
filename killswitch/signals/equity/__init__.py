"""Explanation of equity changes: prices, trades, ledger rows, or unexplained."""
