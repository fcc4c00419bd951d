"""Position sizing: how much of a market to hold, what bounds it, and which inputs it was computed from."""
