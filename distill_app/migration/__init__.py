"""Configs of torchdistill, read as data and turned into experiments of this program."""
