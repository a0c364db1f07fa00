"""Row selection, sampling, batch loading, augmentation and targets."""
