"""What is true without a pipeline: records, storage, commits, diffusion maths, models."""
