"""`deltah train`: on this machine, or data-parallel on a Ray cluster."""
