"""Which receiver gets which message, and when: the tree of routes, decided on frozen structs."""
