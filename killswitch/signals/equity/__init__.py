"""Why equity changed: prices, trades, rows of the ledger, or nothing that is known."""
