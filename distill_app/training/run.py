"""What a launcher calls: an experiment from its config to its summary.

The run's folder is looked into first: a run that was finished returns its summary, one that was interrupted goes on
where it was saved last, with the numbers that it would have given without the interruption, and else the run starts.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from distill_app.machine.process import causes_told
from distill_app.runs.lifecycle import recorded, run_folder
from distill_app.runs.records import refuse_other_data, write_records
from distill_app.runs.tracking import Tracker
from distill_app.trackers.build import outlets_of
from distill_app.training.experiment import Experiment
from distill_app.training.runner import StageRunner
from distill_app.world import ALONE, World


def run_experiment(
    config: Mapping[str, Any],
    *,
    output_dir: str,
    command: list[str],
    experiment: Experiment | None = None,
    shared: str | None = None,
    world: World = ALONE,
) -> dict[str, Any]:
    """Runs, resumes, or finds finished the experiment of a resolved config.

    Every rank calls it; the first one locks the folder, writes and speaks.

    Args:
        config: The resolved config as plain containers.
        output_dir: The run's folder.
        command: The command line, for the records.
        experiment: That of the config where it is open already.
        shared: The folder in which the points of a sweep keep preludes for each other; None: there are no others.
        world: The processes that carry it out; that of the experiment where it is open.

    Returns:
        The summary, as in `summary.json`.
    """
    folder = Path(output_dir)
    world = experiment.world if experiment is not None else world
    with ExitStack() as stack:
        finished = world.from_main(lambda: stack.enter_context(run_folder(folder, config)))
        if finished is not None:
            return finished
        experiment = stack.enter_context(experiment or Experiment.of(config, world=world))
        outlets = outlets_of(experiment.app.tracker, experiment.builder) if world.main else {}
        # Points of a sweep follow each other, and what they say is read as one.
        progress = None if shared is None else False
        tracker = stack.enter_context(Tracker(folder, outlets=outlets, enabled=world.main, progress=progress))
        stop = stack.enter_context(recorded(folder, tracker=tracker, config=config, rank=world.rank))
        stack.enter_context(causes_told(last_words=stop.last_words))
        runner = StageRunner(experiment, folder=folder, tracker=tracker, stop=stop, shared=shared)
        data = runner.data_identity()

        def record() -> None:
            if runner.checkpoints.has("last"):
                refuse_other_data(folder, data)
            write_records(folder, cfg=OmegaConf.create(dict(config)), command=command, data=data)

        world.from_main(record)
        for note in experiment.data_notes():
            tracker.warning(note)
        return runner.run()
