"""From crops to scores: snippets, the training loop, the run store, and which runs feed which table."""
