"""Documents with every name resolved: triggers, stages, routes, accounts."""
