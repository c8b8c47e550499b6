"""Tools of the checkout, run as `python -m scripts.<folder>.<file>` from its root; the installation does without."""
