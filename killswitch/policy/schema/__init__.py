"""What each kind of document may say."""
