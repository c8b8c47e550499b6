"""A network's random weights are drawn from numbers of its own name, or of the network that it starts like."""

import pytest
import torch
from engine_fixtures import equal, resolved, runner, snapshot

from distill_app.check.quick import read
from distill_app.config.build import Builder
from distill_app.config.schema import to_app
from distill_app.config.tree import compose
from distill_app.networks.network import build_network
from distill_app.runs.statefile import save_weights

TWIN = ["+model@extra_models.twin=plain_8_16", "method=kd"]


def weights(name: str, *overrides: str) -> dict[str, torch.Tensor]:
    network = build_network(to_app(resolved(*TWIN, *overrides)), name, builder=Builder(), device="cpu")
    return snapshot(network.module)


def test_networks_of_one_architecture_start_from_numbers_of_their_own():
    student, twin = weights("student"), weights("twin")
    assert student.keys() == twin.keys()
    assert not any(torch.equal(student[name], twin[name]) for name in student if student[name].dim() > 1)


@pytest.mark.slow
def test_a_network_starts_the_same_whatever_else_there_is():
    assert equal(weights("student"), weights("student", "model@teacher=plain_8_16", "method=ce"))
    assert not equal(weights("student"), weights("student", "seed=1"))


def test_a_network_starts_like_another_one_where_it_says_so():
    assert equal(weights("student"), weights("twin", "extra_models.twin.starts_like=student"))


@pytest.mark.slow
def test_it_starts_from_the_same_file_too_unless_it_has_one_itself(tmp_path):
    made = build_network(to_app(resolved("seed=5")), "student", builder=Builder(), device="cpu")
    save_weights(made.module, tmp_path / "net.pt")
    file, like = f"student.checkpoint={tmp_path / 'net.pt'}", "extra_models.twin.starts_like=student"
    assert equal(weights("twin", file, like), snapshot(made.module))
    own = f"extra_models.twin.checkpoint={tmp_path / 'twin.pt'}"
    other = build_network(to_app(resolved("seed=6")), "student", builder=Builder(), device="cpu")
    save_weights(other.module, tmp_path / "twin.pt")
    assert equal(weights("twin", file, like, own), snapshot(other.module))


def test_the_baseline_of_the_comparison_starts_like_the_student(tmp_path):
    with runner(tmp_path, "prelude=comparison") as made:
        student, baseline = (snapshot(made.experiment.network(name).module) for name in ("student", "baseline"))
        assert str(made.experiment.network("baseline").origin) == "random initialisation, as student starts"
    assert equal(student, baseline)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "fragment"),
    [
        (["extra_models.twin.starts_like=studnt"], "extra_models.twin.starts_like: unknown network 'studnt'"),
        (["extra_models.twin.starts_like=twin"], "goes round in a circle, twin -> twin"),
        (["extra_models.twin.starts_like=student", "student.starts_like=twin"], "circle, student -> twin -> student"),
        (["extra_models.twin.starts_like=teacher"], "twin and teacher have different nets"),
    ],
)
def test_what_cannot_start_alike_is_told_at_once(overrides, fragment, tiny):
    errors, _, _ = read(compose([*tiny, "prelude=none", *TWIN, *overrides]))
    assert any(fragment in error for error in errors), errors
