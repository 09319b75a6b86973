"""Training of learned editors: what they are trained for, and how."""
