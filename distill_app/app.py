"""The application: Hydra composes the config, it is checked and opened, and a launcher carries it out."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from distill_app.check.quick import FOREIGN, read
from distill_app.config.schema import AppConf
from distill_app.errors import ConfigError, PointFailed
from distill_app.launch.grid import gathers
from distill_app.launch.job import Job
from distill_app.launch.points import call
from distill_app.launch.queue import Queue
from distill_app.launch.sweep import Sweep, SweepFolder, table
from distill_app.runs.channel import Console, one_channel
from distill_app.runs.claim import finished_line, finished_summary, refuse_other
from distill_app.runs.records import write_hydra_records


@dataclass
class Failure:
    """A job that failed: with its error, or told already."""

    error: Exception | None
    exit_code: int = 1


def start(arguments: list[str], *, show: Callable[[str], None], full: bool = False) -> list[Failure]:
    """Composes and carries out what the command line asks for: one run, or with -m every point of a sweep.

    Args:
        arguments: Hydra's command line.
        show: Is told of every error in the config of a single run as soon as it is found.
        full: Whether errors of a sweep are told with their tracebacks.

    Returns:
        The jobs that failed; a sweep goes on past them.
    """
    failures: list[Failure] = []
    sweep = Sweep(arguments, full=full)
    sweep.refuse_taken()
    queue = Queue()

    # A point of a sweep may run in a copy of this function, in another process: what it has to tell, the sweep records.
    def main(cfg: DictConfig) -> Any:
        hydra_conf = HydraConfig.get()
        output_dir, command = hydra_conf.runtime.output_dir, ["distill", *arguments]
        work = partial(carry_out, cfg, output_dir=output_dir, command=command, hydra=hydra_conf)
        try:
            if hydra_conf.mode is RunMode.MULTIRUN:
                return sweep.run(hydra_conf, partial(work, queue=queue if gathers(hydra_conf) else None))
            work(show=show)
        except PointFailed:
            raise
        except Exception as error:
            failures.append(Failure(error))
        finally:
            with suppress(OSError):
                os.rmdir(output_dir)  # Hydra makes it, also for what is refused or only planned; a run's is not empty
        return None

    try:
        call(main, arguments)
        sweep.settle(queue.submit())
    except PointFailed:
        pass  # told with its point
    finally:
        if points := sweep.outcome():
            print(f"\n{table(points)}\n\nresults: distill report {SweepFolder.last}", flush=True)
    return failures + [Failure(None, point.exit_code) for point in points if point.exit_code]


def carry_out(
    cfg: DictConfig,
    *,
    output_dir: str,
    command: list[str],
    show: Callable[[str], None] | None = None,
    hydra: Any = None,
    queue: Queue | None = None,
) -> dict[str, Any]:
    """Checks a config and hands it to its launcher, or prints the plan.

    A folder that holds another experiment is refused first; one in which this one is finished gives its summary.

    Args:
        cfg: The composed config.
        output_dir: The folder of the run.
        command: What the user typed, for the records.
        show: Is told of every error as soon as it is found.
        hydra: Hydra's own config, to be kept in the folder beside the run's.
        queue: Takes the job where it shall be submitted together with others.

    Returns:
        The run's summary, or what identifies the submitted job.

    Raises:
        ConfigError: Something is wrong with the config; all of it.
        OtherExperiment: Another experiment lies in the folder.
    """
    if OmegaConf.get_type(cfg) is not AppConf:
        raise ConfigError([FOREIGN])
    waiting, show = show is not None, show or (lambda text: None)
    errors, app, plans = read(cfg)
    for text in errors:
        show(text)
    # Who waits at a terminal gets this within a second, and the rest when it is put right.
    if app is None or (errors and waiting):
        raise ConfigError(errors)
    config = asdict(app)
    if not errors and not app.dry_run:
        refuse_other(output_dir, config)
        if (summary := finished_summary(output_dir)) is not None:
            print(finished_line(output_dir, summary), flush=True)
            return summary

    # What is found without torch is told by now; importing it takes seconds.
    from distill_app.check.shapes import opened
    from distill_app.report.published import outline as published_outline
    from distill_app.training.describe import origins_text, plan_text

    sweeps = hydra is not None and hydra.mode is RunMode.MULTIRUN
    world = _world(app, sweeps=sweeps)
    output_dir = world.from_main(lambda: output_dir)  # it may have the time in its name
    outline: list[str] = []
    look = (lambda plan, stage: outline.append(plan_text(plan, stage))) if app.dry_run else None
    with one_channel(Console()):
        try:
            experiment = opened(app, plans, told=errors, look=look, world=world)
        except ConfigError as error:
            for text in error.errors[len(errors) :]:
                show(text)
            raise
        with experiment:
            if app.dry_run:
                notes = [f"warning: {note}" for note in experiment.data_notes()]
                told = [*notes, origins_text(experiment.parts.networks), *outline, *published_outline(config)]
                print("\n".join(told))
                return {}
            launcher = experiment.builder.build(app.launcher, key="launcher")
            if hydra is not None and world.main:
                write_hydra_records(output_dir, cfg=cfg, hydra=hydra)
            shared = str(Path(hydra.sweep.dir, "prelude").absolute()) if sweeps else None
            job = Job(config, output_dir, command, shared, experiment)
            return launcher(job) if queue is None else queue.add(launcher, job)


def _world(app: AppConf, *, sweeps: bool) -> Any:
    """The processes that carry out a run here: those that torchrun, or the like, started together with this one.

    Raises:
        ConfigError: They shall carry out a sweep.
    """
    from distill_app.machine.process import join, processes_here
    from distill_app.world import ALONE

    if not ("RANK" in os.environ and str(app.launcher["_target_"]).endswith(".Local")):
        return ALONE
    if sweeps and (count := processes_here()) > 1:
        raise ConfigError(
            [
                f"launcher: {count} processes that were started together end together, so no sweep goes on past a "
                f"point that fails; start one, with launcher=ddp launcher.tasks_per_node={count}"
            ]
        )
    return join(app.runtime)
