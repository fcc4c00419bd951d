"""A sample of an action with an effect of its own, as the pages of the guide ask for it."""
