"""Building a cache: survey the scans, plan exact rows, write them in worker processes, resume."""
