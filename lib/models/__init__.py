"""Pretrained networks: opening checkpoints, loading backbones, splitting them at h."""
