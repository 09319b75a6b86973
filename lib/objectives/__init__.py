"""What learned editors are trained for: losses of an edited prediction of the clean image."""
