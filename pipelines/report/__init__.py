"""The HTML report of a run: one static folder that opens offline and from a bucket."""
