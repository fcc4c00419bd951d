"""The documents about notifications: routes, the tree that they are in, and silences."""
