"""What ``ray job submit`` runs: wiring and configuration only."""
