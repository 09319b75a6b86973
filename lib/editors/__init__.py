"""Learned editors: networks and tensors that were trained to edit, and their files."""
