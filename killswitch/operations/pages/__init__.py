"""The pages of verbs: status, history, a decision, a plan. `render` makes text, Markdown and HTML of them."""
