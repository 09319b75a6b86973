"""What is measured of edits, of whole runs and of directions: sums, distances, scores by models."""
