"""Configs, and shard pipelines written out from the stages."""
