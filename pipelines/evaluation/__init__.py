"""`deltah evaluate`: what the edits of a run, or of any pair of image shards, are worth."""
