"""Outlets: each record once, whatever breaks off and goes on; and an outlet that fails costs a warning."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from distill_app.runs.journal import Journal
from distill_app.runs.naming import RunFacts
from distill_app.runs.outlets import MEMORY, Outlet
from distill_app.runs.samples import place_of, write_samples
from distill_app.runs.tracking import Tracker


class Server(Outlet):
    """A tracker that keeps what it gets, by run, over processes."""

    runs: ClassVar[dict[str, list]] = {}
    images = 2

    def __init__(self, *, anew: bool = False, fails_at: int | None = None):
        self.anew, self.fails_at, self.states = anew, fails_at, []

    def open(self, run, *, identity):
        self.identity = identity or f"run {len(self.runs)}"
        if self.anew or identity is None:
            self.runs[self.identity] = []
        return self.identity

    def add(self, record):
        got = self.runs[self.identity]
        if self.fails_at is not None and len(got) == self.fails_at:
            raise ConnectionError("the server is away")
        got.append({key: value for key, value in record.items() if key != "timing"})

    def picture(self, name, file):
        self.runs[self.identity].append({"picture": name})

    def close(self, *, state):
        self.states.append(state)


@pytest.fixture(autouse=True)
def servers():
    Server.runs = {}


def part(folder: Path, outlet: Outlet, *, epochs: range, kept: int) -> None:
    """A process of a run: goes on behind some epochs and trains some more."""
    with Tracker(folder, outlets={"server": outlet}) as tracker:
        tracker.rewind(lambda record: record["epoch"] < kept)
        for epoch in epochs:
            tracker.epoch(stage="distill", epoch=epoch, metrics={"val_accuracy": epoch / 10})


def epochs_of(identity: str) -> list[int]:
    return [record["epoch"] for record in Server.runs[identity] if "epoch" in record]


def test_a_resumed_run_sends_nothing_twice(tmp_path):
    part(tmp_path, Server(), epochs=range(4), kept=0)
    part(tmp_path, Server(), epochs=range(2, 6), kept=2)
    assert list(Server.runs) == ["run 0"] and epochs_of("run 0") == [0, 1, 2, 3, 4, 5]
    kept = [record["epoch"] for record in Journal.read(tmp_path / "metrics.jsonl").records]
    assert kept == [0, 1, 2, 3, 4, 5]
    assert json.loads((tmp_path / MEMORY).read_text()) == {"server": {"identity": "run 0", "sent": 6}}


def test_what_is_made_anew_gets_all_records_at_every_start(tmp_path):
    part(tmp_path, Server(anew=True), epochs=range(4), kept=0)
    part(tmp_path, Server(anew=True), epochs=range(2, 4), kept=2)
    assert epochs_of("run 1") == [0, 1, 2, 3] and not (tmp_path / MEMORY).exists()


def test_a_tracker_that_comes_later_gets_what_was_before(tmp_path):
    with Tracker(tmp_path) as tracker:
        tracker.epoch(stage="distill", epoch=0, metrics={})
    part(tmp_path, Server(), epochs=range(1, 2), kept=1)
    assert epochs_of("run 0") == [0, 1]


def test_a_memory_that_is_damaged_begins_a_run_anew(tmp_path):
    part(tmp_path, Server(), epochs=range(2), kept=0)
    (tmp_path / MEMORY).write_text('{"server": {"identity": 3, "sent": "x"}}')
    part(tmp_path, Server(), epochs=range(2, 3), kept=2)
    assert epochs_of("run 1") == [0, 1, 2]


def test_a_failure_ends_the_outlet_and_not_the_run(tmp_path, caplog):
    part(tmp_path, Server(fails_at=1), epochs=range(3), kept=0)
    assert epochs_of("run 0") == [0] and len(Journal.read(tmp_path / "metrics.jsonl").records) == 3
    assert "tracker.server: nothing more is sent (ConnectionError: the server is away)" in caplog.text
    assert caplog.text.count("nothing more is sent") == 1


def test_it_ends_with_what_became_of_the_run(tmp_path):
    outlet = Server()
    (tmp_path / "status.json").write_text('{"state": "preempted"}')
    part(tmp_path, outlet, epochs=range(1), kept=0)
    assert outlet.states == ["preempted"]


def test_samples_are_kept_once_and_given_to_those_that_show_images(tmp_path):
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    for _ in range(2):
        with Tracker(tmp_path, outlets={"server": Server()}) as tracker:
            tracker.rewind(lambda record: True)
            tracker.samples("distill", lambda count: images[:count])
    assert Server.runs["run 0"] == [{"picture": "distill"}] and place_of(tmp_path, "distill").is_file()
    with Tracker(tmp_path / "none", outlets={}) as tracker:
        tracker.samples("distill", lambda count: pytest.fail("nobody wants them"))


def test_inputs_that_are_no_images_have_no_samples(tmp_path):
    with Tracker(tmp_path, outlets={"server": Server()}) as tracker:
        tracker.samples("distill", lambda count: None)
    assert not (tmp_path / "samples").exists()


def test_a_link_in_the_place_of_a_picture_is_replaced_and_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    path = place_of(tmp_path, "distill")
    path.parent.mkdir()
    path.symlink_to(outside)
    write_samples(path, torch.zeros(1, 3, 300, 300, dtype=torch.uint8))
    assert outside.read_text() == "mine" and not path.is_symlink()


def facts(folder: Path, *overrides: str, **config) -> RunFacts:
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra/overrides.yaml").write_text(json.dumps(overrides))
    (folder / "config_resolved.yaml").write_text(json.dumps({"method": {"name": "kd"}, "seed": 3, **config}))
    return RunFacts.of(folder)


def test_a_run_is_called_by_its_method_its_overrides_and_its_seed(tmp_path):
    run = facts(tmp_path / "sweep/0", "seed=3", "method=kd", "stage.lr=0.1", "runtime.device=cpu", "tracker=wandb")
    assert run.name == "kd stage.lr=0.1 seed=3" and run.group == "sweep"
    assert run.settings == {"method": "kd", "seed": "3", "stage.lr": "0.1"}


def test_a_run_from_python_is_called_by_what_it_is(tmp_path):
    run = facts(tmp_path / "a", dataset={"name": "digits"}, student={"name": "plain_8_16"})
    assert run.name == "kd digits plain_8_16 seed=3"
    assert RunFacts.of(tmp_path / "nothing there").name == "nothing there"


def test_a_long_name_is_cut(tmp_path):
    name = facts(tmp_path / "a", f"stage.note={'x' * 500}").name
    assert len(name) == 120 and name.endswith("xx... seed=3"), "seeds are told apart all the same"
