"""Measurements that print a table; every figure in the README comes from one of these commands."""
