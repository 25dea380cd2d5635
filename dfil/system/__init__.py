"""The machine: files, processes, cores, clusters, and where things lie. Knows nothing of videos or
models."""
