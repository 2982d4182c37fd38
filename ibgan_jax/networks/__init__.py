"""Flax modules and nothing else."""
