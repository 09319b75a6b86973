"""What a driver run shows: its progress, its log, its events, its record, its metrics."""
