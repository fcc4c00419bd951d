"""From decisions to orders to verified flat: one executor an account, journaled before every request."""
