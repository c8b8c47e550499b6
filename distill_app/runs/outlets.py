"""Where a run is shown besides its folder: TensorBoard, servers. `metrics.jsonl` stays the source of truth.

An outlet gets the records of that file, one after the other. One that a run makes anew at every start gets all of them
then; to others nothing is sent twice: a resumed run makes the records again that it has lost, the same as before, and
those are counted and left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_app.runs.files import read_object, write_json
from distill_app.runs.naming import RunFacts
from distill_app.words import warn

MEMORY = "tracker.json"
Record = Mapping[str, Any]


class Outlet:
    """A tracker; one of your own derives from this. In the config: `+tracker.mine={_target_: mypackage.Mine}`.

    What it raises costs the run a warning and the outlet its further records, nothing else. Its constructor refuses
    what it cannot work with: a package that is not installed is told before the first batch.

    Attributes:
        anew: What it shows is made anew at every start of the run, of all records.
        images: How many sample images of each stage it would like to show.
    """

    anew: bool = False
    images: int = 0

    def open(self, run: RunFacts, *, identity: str | None) -> str | None:
        """Begins, or goes on with a run.

        Args:
            run: Its name, group, config and folder.
            identity: What an earlier call for this run has returned; None at its first start.

        Returns:
            What the run is known by, for the next start.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method `open`")

    def add(self, record: Record) -> None:
        """Takes a record of `metrics.jsonl`; `runs.scalars.scalars_of` has its numbers with their names."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `add`")

    def picture(self, name: str, file: Path) -> None:
        """Takes a PNG of sample images."""

    def flush(self) -> None:
        """Brings what there is to where it goes; called after every epoch."""

    def close(self, *, state: str) -> None:
        """Ends; `state` is what became of the run: done, failed, preempted ..."""


@dataclass
class _Line:
    """An outlet with how many records it has."""

    outlet: Outlet
    identity: str | None = None
    sent: int = 0


class Outlets:
    """All outlets of a run.

    Args:
        folder: Of the run.
        outlets: Name in the config -> outlet.

    Attributes:
        opened: Whether they know of the run.
    """

    def __init__(self, folder: Path, outlets: Mapping[str, Outlet]):
        self._folder = folder
        self._lines = {name: _Line(outlet) for name, outlet in outlets.items()}
        self._seen = 0
        self.opened = not outlets

    @property
    def images(self) -> int:
        """How many sample images any of them would like."""
        return max((line.outlet.images for line in self._lines.values()), default=0)

    def open(self, records: Sequence[Record]) -> None:
        """Begins, with the records that the run has so far; called again, it begins anew."""
        if not self._lines:
            return
        memory, run = read_object(self._folder / MEMORY) or {}, RunFacts.of(self._folder)
        self.opened, self._seen = True, len(records)
        for name, line in list(self._lines.items()):
            known = memory.get(name) if not line.outlet.anew else None
            known = known if isinstance(known, dict) else {}
            sent, identity = known.get("sent"), known.get("identity")
            line.identity = identity if isinstance(identity, str) else None
            line.sent = sent if line.identity is not None and isinstance(sent, int) else 0
            self._try(name, lambda line=line: self._begin(line, run, records))  # type: ignore[misc]
        self._remember()

    def _begin(self, line: _Line, run: RunFacts, records: Sequence[Record]) -> None:
        line.identity = line.outlet.open(run, identity=line.identity)
        for record in records[line.sent :]:
            line.outlet.add(record)
        line.sent = max(line.sent, len(records))

    def add(self, record: Record) -> None:
        """Hands on a record, to those that do not have it already."""
        self._seen += 1
        for name, line in list(self._lines.items()):
            if self._seen > line.sent:
                line.sent = self._seen
                self._try(name, lambda line=line: line.outlet.add(record))  # type: ignore[misc]

    def picture(self, name: str, file: Path) -> None:
        """Hands on a picture."""
        self._each(lambda outlet: outlet.picture(name, file))

    def flush(self) -> None:
        """Brings everything to where it goes."""
        self._each(lambda outlet: outlet.flush())
        self._remember()

    def close(self, *, state: str) -> None:
        """Ends all of them."""
        if self.opened:
            self._remember()
            self._each(lambda outlet: outlet.close(state=state))

    def _remember(self) -> None:
        known = {
            name: {"identity": line.identity, "sent": line.sent}
            for name, line in self._lines.items()
            if not line.outlet.anew and line.identity is not None
        }
        if known:
            try:
                write_json(self._folder / MEMORY, known)
            except OSError as error:
                file, why = self._folder / MEMORY, error.strerror or error
                warn(f"{file} cannot be written ({why}): if the run is resumed, trackers may get records twice")

    def _each(self, action: Callable[[Outlet], None]) -> None:
        for name, line in list(self._lines.items()) if self.opened else ():
            self._try(name, lambda line=line: action(line.outlet))  # type: ignore[misc]

    def _try(self, name: str, action: Callable[[], None]) -> None:
        """Whatever goes wrong with an outlet ends it, and not the run."""
        try:
            action()
        except Exception as error:
            del self._lines[name]
            said = error.strerror if isinstance(error, OSError) and error.strerror else error
            warn(f"tracker.{name}: nothing more is sent ({type(error).__name__}: {said}); metrics.jsonl has it all")
