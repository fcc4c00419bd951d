"""The gate's judgement: what an order does to an account, and whether the account's limits allow it. Pure."""
