"""Figures of a run, its report page, and the viewer of scans."""
