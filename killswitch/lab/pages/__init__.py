"""What a person sees of a backtest: one content, told as text, Markdown and HTML."""
