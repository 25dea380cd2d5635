"""Benchmarks behind `dfil bench`: ratios measured side by side in one run, medians of several."""
