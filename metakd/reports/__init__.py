"""What a run found: statistics, tables and pictures."""
