"""`distill retry`: submits again what is neither done nor queued nor running."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_app.check.quick import unbuildable
from distill_app.config.build import Builder
from distill_app.config.planning import plan_stages
from distill_app.config.schema import to_app
from distill_app.errors import ConfigError, LaunchError, UsageError, explain
from distill_app.launch.job import Job
from distill_app.launch.queue import Queue
from distill_app.launch.submitit import Submitit
from distill_app.launch.waiting import OVER, states
from distill_app.verbs.resume import command_of
from distill_app.verbs.stored import stored_config
from distill_app.verbs.submitted import add_place, runs_of, shown

_SHELL = ("setup", "srun_args", "additional_parameters")


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_place(parser)
    parser.add_argument(
        "--allow", action="append", default=[], help="a package from which the configs may build objects"
    )
    parser.add_argument(
        "--trust-launcher",
        action="store_true",
        help="take launcher.setup, srun_args and additional_parameters of the stored configs: they are shell commands",
    )
    parser.epilog = "Runs that had begun go on where they were saved last."


def run(arguments: argparse.Namespace) -> int:
    """Submits, and says of every other run why it is not."""
    runs = runs_of(arguments.path)
    found, queue = states(runs), Queue()
    for run in runs:
        if found[run] not in OVER or found[run] == "done":
            print(f"left as it is: {shown(run, arguments.path)} ({found[run]})")
            continue
        config = stored_config(run, allow=arguments.allow)
        _refuse_foreign(config)
        launcher = _launcher(config, run=run, trusted=arguments.trust_launcher)
        prelude = run.parent / "prelude"  # of the sweep that it is a point of
        shared = str(prelude) if prelude.is_dir() else None
        queue.add(launcher, Job(config, str(run), command_of(run), shared))
    if not queue.entries:
        print("nothing to submit")
        return 0
    failed = {id(error): error for error in queue.submit().values() if isinstance(error, LaunchError)}
    for error in failed.values():
        print(explain(error)[0], file=sys.stderr)
    return int(bool(failed))


def _refuse_foreign(config: dict[str, Any]) -> None:
    """Refuses here and now what the job would be refused for, above all packages that nobody allowed.

    Raises:
        ConfigError: All of it.
    """
    app = to_app(config)
    plans, errors = plan_stages(app)
    if wrong := [*errors, *unbuildable(app, plans)]:
        raise ConfigError(wrong)


def _launcher(config: Mapping[str, Any], *, run: Path, trusted: bool) -> Submitit:
    """The launcher of a stored config.

    Raises:
        UsageError: It submits nothing, or has shell commands that nobody trusts.
        ConfigError: It cannot be built.
    """
    conf = config.get("launcher")
    shell = [key for key in _SHELL if isinstance(conf, Mapping) and conf.get(key)]
    if shell and not trusted:
        told = "; ".join(f"launcher.{key}: {conf[key]}" for key in shell)  # type: ignore[index]
        raise UsageError(f"{run} was submitted with shell commands, {told}; if you trust them: --trust-launcher")
    launcher = Builder(config["runtime"]["allow"]).build(conf, key="launcher")  # type: ignore[arg-type]
    if not isinstance(launcher, Submitit):
        raise UsageError(
            f"{run} was not submitted (launcher: {type(launcher).__name__}); to go on: distill resume {run}"
        )
    return launcher
