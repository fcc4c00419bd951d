"""Policy documents compiled into one typed decision graph, and that into fast code."""
