"""Bringing a run to where the GPUs are: a Ray cluster, Kubernetes, or Slurm."""
