"""Folders for new runs, each for one process alone, however many start in the same second."""

import shutil
from itertools import count
from pathlib import Path

# What Hydra writes into a run's folder before anything of the run itself is there.
NOTES = {".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"}


class NewFolders:
    """Makes folders that were not there: the path that is asked for, else with -2, -3, ... behind it.

    A path that is asked for again is the same folder again: Hydra looks it up several times for one run.
    """

    def __init__(self) -> None:
        self._made: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        """The path of a folder that this call, or an earlier one with the same path, made."""
        if path not in self._made:
            self._made[path] = _make(path)
        return self._made[path]

    def take_back(self) -> None:
        """Removes those in which no run began: nothing is in them but Hydra's notes."""
        for folder in map(Path, self._made.values()):
            files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
            if files <= NOTES:
                shutil.rmtree(folder, ignore_errors=True)


def _make(path: str) -> str:
    for number in count(1):
        folder = path if number == 1 else f"{path}-{number}"
        try:
            Path(folder).mkdir(parents=True)
        except FileExistsError:
            if not Path(folder).is_dir():
                raise  # a file in the place of the folder or of one above it
            continue
        return folder
    raise AssertionError("unreachable")
