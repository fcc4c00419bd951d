"""The venues' request limits: what may be sent, and when."""
