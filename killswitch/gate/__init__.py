"""The trading lock: its files, how locks merge, and who may write them."""
