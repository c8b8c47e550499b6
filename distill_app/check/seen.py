"""Whether networks that begin with weights of a run would be tested on images that it trained them on. No torch."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill_app.config.plan import StagePlan
from distill_app.config.schema import AppConf
from distill_app.data.own import is_own, own_listing
from distill_app.errors import DataError
from distill_app.runs.claim import stored_config
from distill_app.runs.files import read_object
from distill_app.runs.records import counts_text, drawn_anew
from distill_app.runs.starts import named_files, run_of

_PLACES = ("root", "file", "path", "subset")  # what says where own data are


def seen_notes(app: AppConf, plans: Sequence[StagePlan]) -> Iterator[str]:
    """A warning for each run whose weights networks begin with, and whose images were shared otherwise.

    Args:
        app: The experiment.
        plans: Its stages.
    """
    folders = dict.fromkeys(run_of(file) for _, file in named_files(asdict(app)))
    for folder in filter(None, folders):
        yield from drawn_otherwise(folder, plans)


def drawn_otherwise(folder: Path, plans: Sequence[StagePlan]) -> Iterator[str]:
    """Yields of which data of a run others would be tested now than then, though they lie in the same place.

    Args:
        folder: Of the run.
        plans: The stages that would test its networks.
    """
    config, records = stored_config(folder) or {}, read_object(folder / "data.json") or {}
    dataset: Mapping[str, Any] = config["dataset"] if isinstance(config.get("dataset"), Mapping) else {}
    place = _place(dataset.get("train"))
    # A stage may have had data of its own, which are none of these.
    stages = [each for each in records.values() if isinstance(each, Mapping) and _is_of(each, dataset)]
    here = {plan.data_key: plan for plan in plans if is_own(plan.data.train) and _place(plan.data.train) == place}
    for key, plan in here.items():
        try:
            now = own_listing(plan.data.train).record()
        except (DataError, OSError):  # told where the data are checked
            continue
        if other := next((then for each in stages if drawn_anew(then := each.get("split"), now)), None):
            yield (
                f"{key}: which images are tested was drawn by their names and {key}.split_seed, and is not what it was "
                f"in {folder} ({counts_text(other)} then, {counts_text(now)} now), so its networks would be tested on "
                f"what they were trained on; put files and settings back as they were, divide the images yourself into "
                f"train and test, or train anew: distill rerun {shlex.quote(str(folder))}"
            )


def _is_of(record: Mapping[str, Any], dataset: Mapping[str, Any]) -> bool:
    """Whether what a run recorded of a stage's data is of the experiment's own data set."""
    return (record.get("dataset"), record.get("root")) == (dataset.get("name"), dataset.get("root"))


def _place(conf: Any) -> list[Any] | None:
    """Where data are; None where nobody says."""
    said = {name: conf.get(name) for name in _PLACES} if isinstance(conf, Mapping) else {}
    if not any(said.values()):
        return None
    return [os.path.abspath(value) if value and name != "subset" else value for name, value in said.items()]
