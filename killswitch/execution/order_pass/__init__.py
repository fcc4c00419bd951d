"""One pass over an account: what it shows, what follows from that, which orders leave."""
