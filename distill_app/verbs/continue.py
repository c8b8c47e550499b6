"""`distill continue RUN key=value ...`: a new run, whose networks begin with the weights that a finished one left."""

import argparse
import os
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from distill_app.check.flags import ordered
from distill_app.check.quoting import quoted
from distill_app.check.seen import drawn_otherwise
from distill_app.config.plan import StagePlan, model_key, models_of
from distill_app.config.planning import plan_stages
from distill_app.config.schema import AppConf
from distill_app.errors import DataError, UsageError
from distill_app.verbs import rerun
from distill_app.verbs.overrides import composed, is_sweep, key_of, merged
from distill_app.verbs.stored import finished

# How the old run read the file that a network of it started from, and what that is for a plain state dict.
_READ = {"checkpoint_key": "null", "checkpoint_optional": "false", "drop_head": "false", "weights": "null"}


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    rerun.add(parser)
    parser.epilog = (
        "Every network that the run trained starts from the weights that it exported (student.pt ...), and stages of "
        "the prelude that train only such networks are skipped; those of the method run, all of them, with the run's "
        "config and these overrides. Optimiser, learning-rate schedule, adapters, averages of weights and the order of "
        "the data begin anew, at epoch 1: stage.epochs=20 are 20 more. A schedule cannot be lengthened: to go on as if "
        "the run had been longer from the start, rerun it; an interrupted run goes on by resume. Examples: "
        "stage.epochs=20 stage.lr=0.01; method=at"
    )


def run(arguments: argparse.Namespace) -> list[str]:
    """The command line of the new run.

    Raises:
        UsageError: There is no such run, it is not finished, or its config or weights cannot be read or trusted.
        DataError: Its images are shared otherwise now, so that others would be tested.
    """
    folder = rerun.folder_of(Path(os.path.abspath(arguments.run)))
    files = exported(folder, finished(folder))
    line = ordered(rerun.line_of(folder, arguments, linked=False))
    flags = [flag for flag in line.flags if flag not in ("-m", "--multirun")]
    app = composed([each for each in line.overrides if not is_sweep(each)], flags)
    if app is not None and (problems := list(drawn_otherwise(folder, plan_stages(app)[0]))):
        raise DataError(problems[0])
    typed = {key_of(each) for each in arguments.overrides}
    # What cannot be composed or read is told of the new run, all of it.
    more = [] if app is None else [each for each in starting(app, files) if key_of(each) not in typed]
    words = [*line.flags, *merged(line.overrides, more)]
    print(f"distill {shlex.join(words)}", file=sys.stderr)
    return words


def exported(folder: Path, summary: Mapping[str, Any]) -> dict[str, Path]:
    """The networks that a finished run trained, each with the file of its weights.

    Raises:
        UsageError: A file is not there.
    """
    names = summary.get("files")
    named = {str(name): str(file) for name, file in (names.items() if isinstance(names, Mapping) else ())}
    # Averages of weights lie beside the weights; a file elsewhere was not written by this program.
    files = {
        name: folder / file
        for name, file in named.items()
        if not (name.endswith("_ema") and name.removesuffix("_ema") in named) and Path(file).name == file
    }
    if not files:
        raise UsageError(f"{folder} has trained no network whose weights could be gone on with")
    if gone := [file for file in files.values() if not file.is_file()]:
        where = shlex.quote(str(folder))
        raise UsageError(
            f"{gone[0]} is not there any more; where checkpoints are, it is made again from the last one: "
            f"rm {where}/summary.json; distill resume {where}"
        )
    return files


def starting(app: AppConf, files: Mapping[str, Path]) -> Iterator[str]:
    """The overrides with which networks begin with files of weights, and are not trained or set before the method.

    Args:
        app: The config of the new run.
        files: Networks of the old run, each with the file of its weights.
    """
    models = models_of(app)
    there = {name: file for name, file in files.items() if name in models}
    for name, file in there.items():
        key = model_key(app, name)
        yield quoted(f"{key}.checkpoint={file}") or f"{key}.checkpoint={file}"
        yield from (f"{key}.{part}={plain}" for part, plain in _READ.items() if getattr(models[name], part))
    plans, _ = plan_stages(app)
    yield from _left_out(plans, there)


def _left_out(plans: list[StagePlan], loaded: Collection[str]) -> Iterator[str]:
    """What of the stages would train again, or overwrite, what was loaded."""
    trained: set[str] = set()  # in this run, by then
    for plan in plans:
        known = bool(plan.trained) and all(name in loaded for name in plan.trained)
        if known and plan.key.startswith("prelude.") and not plan.conf.skip_if_loaded:
            yield f"{plan.key}.skip_if_loaded=true"
        if known and (plan.key.startswith("prelude.") or plan.conf.skip_if_loaded):
            continue
        for role, source in plan.conf.init_from.items():
            if plan.network(role) in loaded and source not in trained:
                yield f"~{plan.key}.init_from.{role}"
        trained |= set(plan.trained)
