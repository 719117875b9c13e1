"""From files and label tables to batches: tables, faults, splits, leaks, preprocessing, the cache, loaders, phantoms."""
