"""Checks of this machine, each with a suggested fix."""
