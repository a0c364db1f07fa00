"""Figures, the report page and the viewer."""
