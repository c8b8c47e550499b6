"""The application: Hydra composes the config, then it is checked, then a launcher carries it out."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from distill_app.check.quick import require
from distill_app.config.build import Builder
from distill_app.config.tree import conf_dir, register
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
    require(cfg, show=show)
    OmegaConf.resolve(cfg)
    config: dict[str, Any] = OmegaConf.to_container(cfg)  # type: ignore[assignment]
    if cfg.dry_run:
        from distill_app.training.describe import describe

        print(describe(config))
        return {}
    launcher = Builder(cfg.runtime.allow).build(config["launcher"], key="launcher")
    return launcher(Job(config, output_dir, command))
