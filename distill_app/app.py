"""The application: Hydra composes the config, then it is checked, then a launcher carries it out."""

import sys
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from distill_app.build import Builder
from distill_app.check import require
from distill_app.config import conf_dir, register
from distill_app.launch import Task

register()


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")
def main(cfg: DictConfig) -> None:
    """One composed config; in a multirun Hydra calls this for every point of the sweep."""
    carry_out(cfg, output_dir=HydraConfig.get().runtime.output_dir, command=["distill", *sys.argv[1:]])


def carry_out(cfg: DictConfig, *, output_dir: str, command: list[str]) -> dict[str, Any]:
    """Checks a config and hands it to its launcher, or prints the plan.

    Args:
        cfg: The composed config.
        output_dir: The folder of the run.
        command: What the user typed, for the records.

    Returns:
        The run's summary, or what identifies the submitted job.

    Raises:
        ConfigError: Something is wrong with the config; all of it.
    """
    require(cfg)
    OmegaConf.resolve(cfg)
    config: dict[str, Any] = OmegaConf.to_container(cfg)  # type: ignore[assignment]
    if cfg.dry_run:
        from distill_app.runner import describe  # imports torch

        print(describe(config))
        return {}
    launcher = Builder(cfg.runtime.allow).build(config["launcher"], key="launcher")
    return launcher(Task(config, output_dir, command))
