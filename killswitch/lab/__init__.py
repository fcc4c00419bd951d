"""The laboratory: bars, generated crashes, recordings, replay and backtests."""
