"""wandb, MLflow and trackio, offline or with a store of this machine: what arrives there of a resumed run."""

import importlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from distill_app.runs.status import Status
from distill_app.runs.tracking import Tracker
from distill_app.trackers import MLflow, WandB

pytestmark = pytest.mark.slow
KD = "method.stages.distill.losses.kd"


def needs(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        pytest.skip(f"{package} is not installed: {error}")


def begun(folder: Path) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text(json.dumps(["method=kd", f"{KD}.weight=0.5", "seed=1"]))
    config = {"method": {"name": "kd"}, "dataset": {"name": "digits"}, "seed": 1}
    (folder / "config_resolved.yaml").write_text(json.dumps(config))
    return folder


def train(folder: Path, outlet, *, epochs: range, state: str) -> None:
    """A process of a run: goes on at an epoch; only one that ends has results."""
    with Tracker(folder, outlets={"server": outlet}) as tracker:
        tracker.rewind(lambda record: record["epoch"] < epochs[0])
        tracker.samples("distill", lambda count: torch.zeros(count, 3, 8, 8, dtype=torch.uint8))
        tracker.start_stage("distill", epochs=3, steps_per_epoch=1, first_epoch=epochs[0])
        clock = {"images_per_second": 9.0, "data_wait": 0.25}
        for epoch in epochs:
            tracker.step(epoch=epoch, step=0, losses={"kd": 0.5 + epoch}, total=1.0, lr=0.1, batch_size=8, **clock)
            tracker.epoch(stage="distill", epoch=epoch, metrics={"val_accuracy": 0.5 + epoch / 10})
        if state == "done":
            tracker.final([{"name": "student", "stage": "distill", "accuracy": 0.7}])
        Status(folder).set(state)


def interrupted_and_resumed(folder: Path, make) -> None:
    train(begun(folder), make(), epochs=range(2), state="preempted")
    train(folder, make(), epochs=range(1, 3), state="done")


def test_mlflow_has_every_figure_once_under_the_name_of_the_run(tmp_path):
    needs("mlflow")
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    where = tmp_path / "artifacts"
    client = MlflowClient(tracking_uri=uri)
    place = client.create_experiment("distill", artifact_location=where.as_uri())
    interrupted_and_resumed(tmp_path / "sweep/run", lambda: MLflow(uri=uri, tags={"who": "me"}))
    (run,) = client.search_runs([place])
    assert run.info.run_name == "kd kd.weight=0.5 seed=1" and run.info.status == "FINISHED"
    assert run.data.params == {"method": "kd", "dataset": "digits", "seed": "1", f"{KD}.weight": "0.5"}
    assert run.data.tags["group"] == "sweep" and run.data.tags["who"] == "me"
    history = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "distill/loss/kd")]
    assert history == [(0, 0.5), (1, 1.5), (2, 2.5)]
    accuracy = client.get_metric_history(run.info.run_id, "distill/epoch/val_accuracy")
    assert [point.value for point in accuracy] == [0.5, 0.6, 0.7]
    assert run.data.metrics["test/student/accuracy"] == 0.7
    assert len(list(where.rglob("distill.png"))) == 1 and len(list(where.rglob("config.yaml"))) == 1


def test_mlflow_says_what_became_of_a_run(tmp_path):
    needs("mlflow")
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    place = client.create_experiment("distill", artifact_location=(tmp_path / "artifacts").as_uri())
    for name, state in (("a", "preempted"), ("b", "failed")):
        train(begun(tmp_path / name), MLflow(uri=uri), epochs=range(1), state=state)
    assert sorted(run.info.status for run in client.search_runs([place])) == ["FAILED", "KILLED"]


def offline_records(folder: Path) -> list:
    """What lies in the offline files of wandb below a folder."""
    from wandb.proto import wandb_internal_pb2

    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    return [wandb_internal_pb2.Record.FromString(data) for file in files for data in chunks(file.read_bytes())]


def chunks(content: bytes) -> Iterator[bytes]:
    """The entries of a log of LevelDB's: blocks of 32 kB, parts of entries behind checksum, length and kind."""
    block, whole, position = 2**15, b"", 7  # behind the head of the file
    while position + 7 <= len(content):
        if block - position % block < 7:
            position += block - position % block
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        whole += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def items(entries) -> dict[str, object]:
    return {"/".join(entry.nested_key) or entry.key: json.loads(entry.value_json) for entry in entries}


def test_wandb_has_every_figure_once_and_goes_on_with_the_same_run(tmp_path, monkeypatch):
    needs("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "sweep/run"
    interrupted_and_resumed(run, lambda: WandB(mode="offline", project="mine", tags=["x"]))
    records = offline_records(run)
    runs = [record.run for record in records if record.HasField("run")]
    assert {each.run_id for each in runs} == {json.loads((run / "tracker.json").read_text())["server"]["identity"]}
    assert runs[0].display_name == "kd kd.weight=0.5 seed=1" and runs[0].run_group == "sweep"
    assert runs[0].project == "mine" and list(runs[0].tags) == ["x"]
    history = [items(record.history.item) for record in records if record.HasField("history")]
    kd = [(each["distill/at"], each["distill/loss/kd"]) for each in history if "distill/loss/kd" in each]
    assert kd == [(0, 0.5), (1, 1.5), (2, 2.5)]
    accuracy = [each["distill/epoch/val_accuracy"] for each in history if "distill/epoch/val_accuracy" in each]
    assert accuracy == [0.5, 0.6, 0.7]
    assert sum("samples/distill/path" in each for each in history) == 1
    summary = [items(record.summary.update) for record in records if record.HasField("summary")]
    assert any(each.get("test/student/accuracy") == 0.7 for each in summary)
    metrics = {record.metric.name: record.metric.step_metric for record in records if record.HasField("metric")}
    assert metrics["distill/loss/kd"] == "distill/at" and metrics["distill/epoch/val_accuracy"] == "distill/epoch/at"


_TRACKIO = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_servers import interrupted_and_resumed
from distill_app.trackers import Trackio
interrupted_and_resumed(Path({folder!r}), lambda: Trackio(project="mine"))
"""


def test_trackio_has_every_figure_once_in_its_data_base(tmp_path):
    needs("trackio")
    folder, store = tmp_path / "sweep/run", tmp_path / "store"
    code = _TRACKIO.format(tests=str(Path(__file__).parent), folder=str(folder))
    environment = {**os.environ, "TRACKIO_DIR": str(store)}  # read when it is imported
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    look = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as S; name, = S.get_runs('mine'); "
        "print(json.dumps([name, S.get_logs('mine', name)], default=str))"
    )
    said = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    name, logs = json.loads(said.stdout.splitlines()[-1])
    assert name == "kd kd.weight=0.5 seed=1"
    kd = [(each["step"], each["distill/loss/kd"]) for each in logs if "distill/loss/kd" in each]
    assert kd == [(0, 0.5), (1, 1.5), (2, 2.5)]
    assert [each["test/student/accuracy"] for each in logs if "test/student/accuracy" in each] == [0.7]
