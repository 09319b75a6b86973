"""Names of regions with a meaning of their own; light, so that a config can be checked without
torch.
"""

WHOLE = "image"
"""The region of a direction that is not tied to a part of the image: all of it."""
