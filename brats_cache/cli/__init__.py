"""The commands of `brats` that make and inspect caches, a file a command."""
