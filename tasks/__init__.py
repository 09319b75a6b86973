"""The stages: one step of work each on a stream of records."""
