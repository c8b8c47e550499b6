"""`distill resume`: going on with a run that was interrupted, and making again what a finished one has lost."""

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill_app.check.flags import ordered
from distill_app.check.share import share_errors
from distill_app.config.planning import plan_stages
from distill_app.config.schema import to_app
from distill_app.errors import ConfigError, UsageError
from distill_app.runs.claim import finished_summary, has_checkpoints, lost_records, lost_text, write_config
from distill_app.runs.files import write_text
from distill_app.runs.journal import METRICS, Journal
from distill_app.runs.settings import changes
from distill_app.runs.status import Status, run_lock
from distill_app.runs.untrusted import read_text
from distill_app.verbs.overrides import chosen_groups, key_of, merged, over, unresolved
from distill_app.verbs.stored import add_run, open_run, read_yaml
from distill_app.words import warn

_ELSEWHERE = ("hydra", "dry_run", "launcher")
_NOTES = (".hydra/config.yaml", ".hydra/overrides.yaml")


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_run(parser, checkpoints=False)
    parser.add_argument(
        "--processes", type=int, help="how many processes of this machine share out every batch (default: 1)"
    )
    parser.epilog = "Where a finished run has lost its summary.json or status.json, this is made again."
    parser.add_argument(
        "overrides",
        nargs="*",
        help="stage.epochs=40: other epochs for stages that are not over, where their schedule does not depend on the "
        "length (constant, multistep, plateau; not one-cycle or cosine); or what is no setting, as "
        "runtime.num_workers=2. All else is refused: see continue and rerun",
    )


def run(arguments: argparse.Namespace) -> int:
    """Goes on with the run, makes again what it has lost, or says that it is finished."""
    _, folder, config = open_run(arguments)
    overrides = ordered(arguments.overrides).arguments
    if finished_summary(folder) is not None or _status_again(folder):
        if overrides:
            line = shlex.join([str(folder), *overrides])
            raise UsageError(
                f"{folder} is finished; to train on from its weights, in a new folder: distill continue {line}; to run "
                f"it anew with this: distill rerun {line}"
            )
        print(f"{folder} is finished; its summary is {folder / 'summary.json'}")
        records = (finished_summary(folder) or {}).get("records")
        if loss := Journal.read(folder / METRICS).loss(records if isinstance(records, int) else None):
            warn(f"{folder / METRICS}: {loss}; the results in summary.json do not depend on it")
        return 0
    if lost_records(folder) and has_checkpoints(folder):
        print(f"{folder} was finished; {lost_text(folder)} and is made again from the last checkpoint", flush=True)
    if overrides:
        config = _changed(folder, config, overrides)
    _carry_out(folder, config, processes=arguments.processes)
    return 0


def _carry_out(folder: Path, config: dict[str, Any], *, processes: int | None) -> None:
    """Goes on with the run, in this process or by several."""
    from distill_app.launch.ddp import Ddp
    from distill_app.launch.job import Job

    job = Job(config, str(folder), command_of(folder))
    if processes is None or processes == 1:
        job()
        return
    launcher = Ddp(processes)
    app = to_app(config | {"launcher": {"_target_": "distill_app.launch.Ddp", "tasks_per_node": processes}})
    plans, _ = plan_stages(app)
    if errors := list(share_errors(app, plans)):
        raise ConfigError(errors)
    launcher(job)


def _status_again(folder: Path) -> bool:
    """Writes the status of a run anew that has its summary and no checkpoints to go on from; whether there was one."""
    if lost_records(folder) != ["status.json"] or has_checkpoints(folder):
        return False
    with run_lock(folder):
        print(f"{lost_text(folder)}; it is written anew, since a summary is there", flush=True)
        Status(folder).set("done")
    return True


def _changed(folder: Path, config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The config with overrides with which the run may go on; other epochs stand in its folder from now on.

    Raises:
        UsageError: It may not go on with them; nothing was touched.
        ConfigError: They fit no key, or not what is over.
    """
    _refuse_elsewhere(folder, overrides)
    cfg, changed = over(_begun_with(folder, config), overrides)
    from distill_app.check.going_on import refuse_changes, refuse_lengths
    from distill_app.runs.checkpoint import Checkpoints
    from distill_app.runs.tracking import Tracker

    if not refuse_changes(folder, config, changed):
        return changed
    checkpoints = Checkpoints(folder / "checkpoints")
    with run_lock(folder):
        refuse_lengths(config, changed, state=checkpoints.load("last") if checkpoints.has("last") else None)
        text = "; ".join(map(str, changes(config, changed)))
        write_config(folder, OmegaConf.create(changed))
        _note_overrides(folder, cfg, overrides)
        with Tracker(folder, progress=False) as tracker:
            tracker.info(f"goes on with other settings: {text}")
    return changed


def _refuse_elsewhere(folder: Path, overrides: Sequence[str]) -> None:
    """Refuses what is neither a setting of the run nor of use here."""
    wrong = [each for each in overrides if key_of(each).replace("/", ".").split(".")[0] in _ELSEWHERE]
    if wrong:
        raise UsageError(f"{wrong[0]}: resume goes on with the run in its own folder and in this process")
    if chosen := chosen_groups(overrides):
        line = shlex.join([str(folder), *overrides])
        raise UsageError(
            f"{chosen[0]!r} chooses a group: a run goes on with the settings that it began with; once it is finished: "
            f"distill continue {line}; from the start: distill rerun {line}"
        )


def _begun_with(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The run's config as it was composed, where what follows from other keys still does; else made from the resolved.

    The composed one is no more trusted than the resolved one: it has to say the same.
    """
    try:
        composed: Any = read_yaml(folder / _NOTES[0])
        trusted = {
            "launcher": config["launcher"],
            "runtime": {**composed["runtime"], "allow": config["runtime"]["allow"]},
        }
        node = {**composed, **trusted}
        if "${" in re.sub(r"\$\{[\w.]+\}", "", str(node)):  # what is no key could read the environment
            return unresolved(config)
        if not changes(config, over(node, [])[1]):
            return node
    except (
        OmegaConfBaseException,
        ConfigError,
        UsageError,
        KeyError,
        TypeError,
    ):  # damaged
        pass
    return unresolved(config)


def _note_overrides(folder: Path, cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Has Hydra's notes tell of a run what it goes on with, so that it is started again with that too."""
    composed, typed = (folder / name for name in _NOTES)
    try:
        stored: Any = read_yaml(typed)
    except UsageError:  # a run from Python has none
        return
    if isinstance(stored, list):
        write_text(typed, OmegaConf.to_yaml(merged([str(each) for each in stored], overrides)))
        write_text(composed, OmegaConf.to_yaml(cfg))


def command_of(folder: Path) -> list[str]:
    """The command line that began the run, as its folder tells it; it is written down again, never carried out."""
    try:
        return shlex.split(read_text(folder / "command.txt"))
    except FileNotFoundError:
        return ["distill"]
    except (OSError, ValueError) as error:
        warn(f"{folder / 'command.txt'} cannot be read ({error}); the command that began the run is lost")
        return ["distill"]
