"""Scores: voxel, surface and lesion metrics, calibration, intervals, summaries."""
