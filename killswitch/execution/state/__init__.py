"""What an executor knows of its account: jobs, ledgers, protective orders."""
