"""Runs that touch no venue: bars, crashes, books, recordings, replays and backtests."""
