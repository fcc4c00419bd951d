"""Sources of policies: what a directory, a git repository or a ConfigMap proposes, and whether it may be trusted."""
