"""Finding cases by the names of files and folders; no scan is opened."""
