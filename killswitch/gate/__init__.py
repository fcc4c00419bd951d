"""The trading lock: what its files say, how locks merge, and who may write them."""
