"""Directions on disk, in libraries, and how a plan chooses among them."""
