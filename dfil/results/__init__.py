"""From scores to what is published: metrics, tables, figures, claims, the page."""
