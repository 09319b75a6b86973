"""Placing workers and watching over them: the only folder that may import ray."""
