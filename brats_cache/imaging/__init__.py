"""NIfTI volumes, orientation, labels and preprocessing of arrays."""
