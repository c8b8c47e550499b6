"""TensorBoard: what it shows of a run, under which name, and that it is made anew of the records."""

import json
from pathlib import Path

import pytest
import torch

from distill_app.runs.status import Status
from distill_app.runs.tracking import Tracker
from distill_app.trackers import TensorBoard


def train(folder: Path, *, epochs: range = range(3), state: str = "done", **options) -> None:
    """Writes what a run of three epochs does, or those of a part of it."""
    with Tracker(folder, outlets={"tensorboard": TensorBoard(**options)}) as tracker:
        tracker.rewind(lambda record: record["kind"] != "test" and record["epoch"] < epochs[0])
        tracker.samples("distill", lambda count: torch.full((count, 3, 8, 8), 7, dtype=torch.uint8))
        tracker.start_stage("distill", epochs=3, steps_per_epoch=2, first_epoch=epochs[0])
        clock = {"images_per_second": 9.0, "data_wait": 0.25}
        for epoch in epochs:
            for step in range(2):
                losses = {"ce": 1.0 / (epoch + 1), "kd": 0.5}
                tracker.step(epoch=epoch, step=step, losses=losses, total=1.0, lr=0.1, batch_size=8, **clock)
            tracker.epoch(stage="distill", epoch=epoch, metrics={"val_accuracy": 0.5 + epoch / 10, "seconds": 1.0})
        tracker.final([{"name": "student", "stage": "distill", "accuracy": 0.7, "parameters": 9, "seconds": 3.0}])
        Status(folder).set(state)


def settings(folder: Path, *overrides: str) -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text(json.dumps(overrides))
    config = {"method": {"name": "kd"}, "dataset": {"name": "digits"}, "seed": 1}
    (folder / "config_resolved.yaml").write_text(json.dumps(config))


def place(folder: Path) -> Path:
    (found,) = {file.parent for file in (folder / "tensorboard").glob("**/events.out.tfevents.*")}
    return found


def loaded(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place(folder)))
    events.Reload()
    return events


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = loaded(folder)
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_scalars_have_the_stage_in_their_names_and_steps_of_the_stage(tmp_path):
    train(tmp_path)
    found = scalars(tmp_path)
    assert found["distill/loss/ce"] == [(step, pytest.approx(1 / (step // 2 + 1))) for step in range(6)]
    assert found["distill/epoch/val_accuracy"] == [(epoch, pytest.approx(0.5 + epoch / 10)) for epoch in range(3)]
    assert found["test/student/accuracy"] == [(0, pytest.approx(0.7))]


def test_it_is_made_anew_of_the_records_that_are_kept(tmp_path):
    train(tmp_path / "whole")
    train(tmp_path / "resumed")
    train(tmp_path / "resumed", epochs=range(1, 3))
    assert scalars(tmp_path / "resumed") == scalars(tmp_path / "whole")
    images = [loaded(tmp_path / name).Images("samples/distill") for name in ("whole", "resumed")]
    assert [len(each) for each in images] == [1, 1]
    assert images[0][0].encoded_image_string == images[1][0].encoded_image_string


def test_a_run_is_called_by_its_method_and_what_was_typed(tmp_path):
    settings(tmp_path, "method=kd", "method.stages.distill.losses.kd.weight=0.5", "cache.folder=/x", "seed=1")
    train(tmp_path)
    assert place(tmp_path).name == "kd kd.weight=0.5 seed=1" and place(tmp_path).parent.name == "tensorboard"


def test_names_of_others_stay_in_the_folder(tmp_path):
    settings(tmp_path, "+a.b=../../x/y\x1b[31m")
    train(tmp_path)
    assert place(tmp_path).parent == tmp_path / "tensorboard" and "\x1b" not in place(tmp_path).name


def test_files_of_an_earlier_version_and_of_another_name_are_gone(tmp_path):
    (tmp_path / "tensorboard/old name").mkdir(parents=True)
    for where in ("", "old name/"):
        (tmp_path / f"tensorboard/{where}events.out.tfevents.1.x").write_bytes(b"")
    train(tmp_path)
    assert len(list((tmp_path / "tensorboard").rglob("*"))) == 2, "a folder and its file"


def hparams(folder: Path) -> dict[str, object]:
    from tensorboard.plugins.hparams import plugin_data_pb2

    data = loaded(folder).summary_metadata
    found = {}
    for tag, metadata in data.items():
        if metadata.plugin_data.plugin_name == "hparams":
            found[tag] = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    return found


def test_settings_stand_beside_the_final_figures(tmp_path):
    settings(tmp_path, "method=kd", "stage.lr=0.05", "dataset=digits")
    train(tmp_path)
    found = hparams(tmp_path)
    values = found["_hparams_/session_start_info"].session_start_info.hparams
    assert values["stage.lr"].number_value == 0.05 and values["method"].string_value == "kd"
    metrics = [info.name.tag for info in found["_hparams_/experiment"].experiment.metric_infos]
    assert metrics == ["test/student/accuracy"], "figures, and neither parameters nor seconds"


def test_a_run_that_is_not_done_has_no_final_figures(tmp_path):
    train(tmp_path, state="failed")
    assert hparams(tmp_path) == {}


def test_sample_images_are_shown_where_they_are_wanted(tmp_path):
    train(tmp_path / "a", images=4)
    (image,) = loaded(tmp_path / "a").Images("samples/distill")
    assert (image.width, image.height) == (4 * 64 + 3 * 2, 64)
    train(tmp_path / "b", images=0)
    assert loaded(tmp_path / "b").Tags()["images"] == [] and not (tmp_path / "b/samples").exists()
