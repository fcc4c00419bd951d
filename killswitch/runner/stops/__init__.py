"""Catastrophe stops of a run: what is placed at the venues at each tick, and what is wrong with them."""
