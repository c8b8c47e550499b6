"""A trained network where it is used: its preprocessing, predictions, files for other programs, and its card."""
