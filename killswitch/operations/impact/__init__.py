"""The class of a change of policies: both sides, the differences of their documents, and what is proved."""
