"""The cache file: its schema, reading, checksums, sets of caches, links."""
