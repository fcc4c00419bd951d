"""The impact of a change of policies: what is proved of it, what it would have done, and the comment about it."""
