"""Verbs that need no venue: backtests, replays, bars, the paper venue."""
