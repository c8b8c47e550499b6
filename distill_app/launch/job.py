"""One run as plain data, to be carried out here or elsewhere."""

from dataclasses import dataclass, field
from typing import Any

from distill_app.runs.jobs import note_own_job


@dataclass(frozen=True)
class Job:
    """One run as plain data: importable and picklable, so that a job can carry it out elsewhere.

    `config` is the resolved configuration as plain containers. The run resumes by itself from what it finds
    in `output_dir`; therefore a requeued job is the same job once more. `shared` is where the points of a sweep keep
    preludes for each other. `experiment` is that of the config as the
    check has opened it: it stays in this process, and is opened anew where the job is carried out elsewhere.
    """

    config: dict[str, Any]
    output_dir: str
    command: list[str]
    shared: str | None = None
    experiment: Any = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "experiment": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __call__(self) -> dict[str, Any]:
        """Carries out the run here, whatever launcher the configuration names: a job never submits jobs.

        Where this process was started as one of several, all of them carry it out together.
        """
        # Imported here so that submitting does not load torch.
        from distill_app.runs.stop import Interrupted
        from distill_app.training.run import run_experiment

        world = self.experiment.world if self.experiment is not None else self._world()
        if world.main:
            note_own_job(self.output_dir)
        try:
            return run_experiment(
                self.config,
                output_dir=self.output_dir,
                command=self.command,
                experiment=self.experiment,
                shared=self.shared,
                world=world,
            )
        except Interrupted as error:
            if error.then is not None:
                error.then(error.signal, None)  # submitit queues the job again, and ends the process
            raise

    def _world(self) -> Any:
        from distill_app.config.schema import to_app
        from distill_app.machine.process import join, processes_here
        from distill_app.world import ALONE

        return join(to_app(self.config).runtime) if processes_here() > 1 else ALONE

    def checkpoint(self) -> Any:
        """What submitit queues again when the job is preempted or out of time."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
