"""Errors, atomic files, processes, progress and text; knows nothing of scans."""
