"""Synthetic cases shaped and named like BraTS 2020."""
