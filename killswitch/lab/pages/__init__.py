"""Pages about a backtest: one content as text, Markdown and HTML."""
