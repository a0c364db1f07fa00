"""From a model to masks: ensembles, test-time augmentation, post-processing, prediction."""
