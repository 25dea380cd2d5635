"""From crops to scores: snippets, the training loop, the run store, which runs feed which table."""
