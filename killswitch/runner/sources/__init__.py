"""Policies from a source during a run: polls, reviews and proposals next to the ticks, and what is shown of them."""
