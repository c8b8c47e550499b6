"""Where a script writes to."""

import argparse
import tempfile
from pathlib import Path


def require_folder(parser: argparse.ArgumentParser, *folders: Path) -> None:
    """Makes folders and tries to write there, so that hours of measuring do not end in an error.

    Raises:
        SystemExit: A file is in the way, or nothing may be written there.
    """
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            parser.error(f"cannot write to {folder}: {error.strerror or error}")
