"""What operators do and see: commands, previews, progress, status."""
