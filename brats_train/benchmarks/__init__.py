"""Benchmarks of the cache, the loader, the training step and prediction."""
