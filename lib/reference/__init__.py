"""Directions that move one region of an image towards a reference image."""
