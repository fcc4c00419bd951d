"""Whether an account can be trusted, asked before it is armed."""
