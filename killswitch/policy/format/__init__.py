"""The layout of policy files, for `ksctl fmt`."""
