"""The kinds of action that a stage may have, as planning has them: one file a kind."""
