"""State of an executor: jobs, ledgers, protective orders."""
