"""Turns BraTS scans into one memory-mappable HDF5 cache. Knows nothing of training."""

__version__ = "0.1.0"
