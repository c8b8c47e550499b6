"""The benchmark: `python -m scripts.benchmark`."""
