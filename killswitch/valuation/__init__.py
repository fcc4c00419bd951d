"""Values of accounts: trust, position measures, currencies, and the sum of a scope."""
