"""When a run is saved within an epoch."""

import time

from distill_app.config.schema import CheckpointConf


class SavingPolicy:
    """Says when a checkpoint is due: it changes no number of the run, so that the clock may have a say.

    Args:
        conf: Every so many batches, or minutes, or neither.
    """

    def __init__(self, conf: CheckpointConf):
        self._conf, self._step, self._at = conf, 0, time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether one is due now.

        Args:
            step: Batches of the epoch that are over.
        """
        steps, minutes = self._conf.every_steps, self._conf.every_minutes
        if steps is not None and step // steps > self._step // steps:
            return True
        return minutes is not None and time.monotonic() - self._at >= 60 * minutes

    def saved(self, step: int) -> None:
        """Counts anew from a checkpoint, or from the beginning of an epoch, which is one too."""
        self._step, self._at = step, time.monotonic()
