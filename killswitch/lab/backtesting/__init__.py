"""The parts of one backtest: what fires, what rests at the venue, and which bars can be skipped."""
