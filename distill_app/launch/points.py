"""From a command line to one call per point: a single run, or every point of a sweep. Hydra does the work."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import run_job
from hydra.errors import ConfigCompositionException, SearchPathException
from hydra.types import HydraContext, RunMode, TaskFunction
from hydra.version import setbase
from omegaconf import DictConfig, OmegaConf

from distill_app.config.groups import conf_dir
from distill_app.config.tree import register, with_none
from distill_app.runs.folders import NewFolders

BASE = "1.3"


def call(task: TaskFunction, arguments: Sequence[str]) -> None:
    """Composes a command line and calls `task` with the config of every point, or shows what the line asks to see.

    It does what the decorator `hydra.main` does, which composes everything one time more, to look at hydra.mode.

    Args:
        task: Is called within Hydra's context: `HydraConfig` says where the point's folder is.
        arguments: Flags, then overrides.
    """
    register()
    words = with_none(arguments)
    parsed = get_args_parser().parse_args(words)
    shows = (parsed.help, parsed.hydra_help, parsed.cfg, parsed.resolve, parsed.info, parsed.shell_completion)
    if any(shows):
        sys.argv = [sys.argv[0], *words]
        hydra.main(version_base=BASE, config_path=conf_dir(), config_name="config")(task)()
        return
    setbase(BASE)
    hydra_ = Hydra.create_main_hydra2("distill", _search_path(parsed))
    folders = NewFolders()
    OmegaConf.register_new_resolver("new_folder", folders, replace=True)
    try:
        _call(task, parsed, hydra_)
    finally:
        OmegaConf.register_new_resolver("new_folder", str, replace=True)
        folders.take_back()
        GlobalHydra.instance().clear()


def _search_path(parsed: Namespace) -> Any:
    path = parsed.config_path or conf_dir()
    if "://" not in path:  # relative to where it is typed; Hydra would look beside this package's code
        path = str(Path(path).absolute())
        if not Path(path).is_dir():
            raise SearchPathException(f"--config-path: {path} is not a folder")
    search = create_config_search_path(path)
    if parsed.config_dir is not None:
        folder = Path(parsed.config_dir).absolute()
        if not folder.is_dir():
            raise SearchPathException(f"Additional config directory '{folder}' not found")
        search.prepend("command-line", f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
    return search


def _call(task: TaskFunction, parsed: Namespace, hydra_: Hydra) -> None:
    name, overrides = parsed.config_name or "config", list(parsed.overrides)
    cfg = None if parsed.multirun else _single(hydra_, name, overrides)
    if cfg is not None:
        _run(task, cfg, hydra_, name)
        return
    typed = any(override.lstrip("+").startswith("hydra.mode=") for override in overrides)
    hydra_.multirun(name, task, overrides if typed else [*overrides, "hydra.mode=MULTIRUN"])


def _single(hydra_: Hydra, name: str, overrides: list[str]) -> DictConfig | None:
    """The config of a single run; None where the config itself says that it is a sweep."""
    try:
        cfg = hydra_.compose_config(name, overrides, RunMode.RUN, with_log_configuration=True)
    except ConfigCompositionException as error:
        # Several values are an error of a single run only.
        if "Ambiguous value" in str(error) and hydra_.get_mode(name, overrides) == RunMode.MULTIRUN:
            return None
        raise
    return None if cfg.hydra.mode == RunMode.MULTIRUN else cfg


def _run(task: TaskFunction, cfg: DictConfig, hydra_: Hydra, name: str) -> None:
    cfg.hydra.mode = RunMode.RUN
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name=name)
    done = run_job(
        task,
        cfg,
        job_dir_key="hydra.run.dir",
        job_subdir_key=None,
        hydra_context=HydraContext(config_loader=hydra_.config_loader, callbacks=callbacks),
    )
    callbacks.on_run_end(config=cfg, config_name=name, job_return=done)
    _ = done.return_value  # raises what the task raised
