"""The application: Hydra composes the config, it is checked and opened, and a launcher carries it out."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from distill_app.check.quick import read
from distill_app.config.tree import conf_dir, register
from distill_app.errors import ConfigError
from distill_app.launch.job import Job


@dataclass
class Failure:
    """A job that raised, with the overrides that made it."""

    overrides: list[str]
    error: Exception


def start(arguments: list[str], *, show: Callable[[str], None]) -> list[Failure]:
    """Composes and carries out what the command line asks for: one run, or with -m every point of a sweep.

    Args:
        arguments: Hydra's command line.
        show: Is told of every error in a config as soon as it is found.

    Returns:
        The jobs that failed; a sweep goes on past them.
    """
    register()
    failures: list[Failure] = []

    @hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")
    def main(cfg: DictConfig) -> Any:
        hydra_conf = HydraConfig.get()
        try:
            summary = carry_out(
                cfg, output_dir=hydra_conf.runtime.output_dir, command=["distill", *arguments], show=show
            )
        except Exception as error:
            # As they were typed: an interpolation in them may be what is wrong.
            typed: Any = OmegaConf.to_container(hydra_conf.overrides.task, resolve=False)
            failures.append(Failure(typed, error))
            return None
        return summary.get("objective")  # for sweepers that optimise

    sys.argv = [sys.argv[0], *arguments]
    main()
    return failures


def carry_out(
    cfg: DictConfig, *, output_dir: str, command: list[str], show: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Checks a config and hands it to its launcher, or prints the plan.

    Args:
        cfg: The composed config.
        output_dir: The folder of the run.
        command: What the user typed, for the records.
        show: Is told of every error as soon as it is found.

    Returns:
        The run's summary, or what identifies the submitted job.

    Raises:
        ConfigError: Something is wrong with the config; all of it.
    """
    show = show or (lambda text: None)
    errors, app, plans = read(cfg)
    for text in errors:
        show(text)
    if app is None:
        raise ConfigError(errors)

    # What is found without torch is told by now; importing it takes seconds.
    from distill_app.check.shapes import opened
    from distill_app.training.describe import plan_text

    outline: list[str] = []
    look = (lambda plan, stage: outline.append(plan_text(plan, stage))) if app.dry_run else None
    try:
        experiment = opened(app, plans, told=errors, look=look)
    except ConfigError as error:
        for text in error.errors[len(errors) :]:
            show(text)
        raise
    with experiment:
        if app.dry_run:
            print("\n".join(outline))
            return {}
        launcher = experiment.builder.build(app.launcher, key="launcher")
        return launcher(Job(asdict(app), output_dir, command, experiment))
