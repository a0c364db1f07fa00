"""Learns from a cache that `brats_cache` made: training, evaluation, prediction, figures."""
