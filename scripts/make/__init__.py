"""What makes files of the repository and data sets."""
