"""From mapped caches to augmented batches: row selection, loading, augmentation, targets."""
