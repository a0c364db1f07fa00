"""Processes, precision, compilation and signals: what the machine needs, not the model."""
