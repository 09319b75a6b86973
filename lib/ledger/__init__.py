"""What a run leaves and how it is proved: commits, manifest, index, verification."""
