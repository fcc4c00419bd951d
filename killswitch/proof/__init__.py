"""Proofs about policies: the decision graph lowered to SMT, properties, and traces that the engine replays."""
