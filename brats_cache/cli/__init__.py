"""The commands of `brats` that make and inspect caches, one file per command."""
