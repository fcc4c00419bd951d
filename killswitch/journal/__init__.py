"""Journal entries decoded once, and what follows from them: orders, targets on positions, what is left of each."""
