"""The kinds of action that a stage may have, as the graph has them: one file a kind."""
