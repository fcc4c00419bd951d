"""The live board: one reader of the store, streams of events that share it, pages and their sessions."""
