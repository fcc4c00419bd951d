"""Rules about valid documents, for `ksctl lint`."""
