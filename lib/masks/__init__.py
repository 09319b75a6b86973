"""Where the masks of regions come from: one protocol, and one module for each kind of provider."""
