"""What the documentation site adds to the pages under docs/."""
