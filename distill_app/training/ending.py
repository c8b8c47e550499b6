"""That a run shall end, as all of its processes know it: a signal does not reach all of them at one line of code."""

from signal import Signals

from distill_app.runs.stop import Stop
from distill_app.world import World


class Ending:
    """Whether a run was asked to end.

    Args:
        stop: What this process was asked.
        world: The processes of the run.
    """

    def __init__(self, stop: Stop, world: World):
        self._stop, self._world = stop, world
        self._agreed: Signals | None = None

    @property
    def asked(self) -> Signals | None:
        """The signal that all ranks know of; None where there is none."""
        return self._agreed if self._world.size > 1 else self._stop.requested

    def agreed(self, *, due: bool = False) -> bool:
        """Whether to save here: on all ranks since one was asked to end, or since it is `due` on one."""
        if self._world.size > 1:
            number, any_due = self._world.agree(int(self._stop.requested or 0), int(due))
            if number:
                self._agreed = Signals(number)
                self._stop.request(self._agreed)
            return bool(number or any_due)
        return self._stop.requested is not None or due

    def look(self) -> None:
        """Ends the run where all ranks know that it was asked to; what came to one alone since then waits.

        Raises:
            Interrupted: It was.
        """
        if self.asked is not None:
            self._stop.look()

    def heed(self) -> None:
        """Ends the run where any of its processes was asked to.

        Raises:
            Interrupted: One was.
        """
        if self._world.size > 1:
            self.agreed()
            self.look()
