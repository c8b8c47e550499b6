"""A file of weights that is named and not there is told before anything is built, for every network."""

import pytest
import torch

from distill_app.check.quick import read
from distill_app.config.tree import compose

NETWORKS = ["teacher", "student", "extra_models.twin", "method.extra_models.assistant"]
ALL = ["method=takd", "method.params.assistants=[assistant,twin]", "+model@extra_models.twin=plain_8_16"]


def errors(*overrides: str) -> list[str]:
    return read(compose(["dataset=digits", "stage=digits", *overrides]))[0]


@pytest.mark.slow
@pytest.mark.parametrize("prelude", ["none", "comparison"])
@pytest.mark.parametrize("key", NETWORKS)
def test_a_checkpoint_that_is_not_there_is_an_error_for_every_network(key, prelude):
    found = errors(*ALL, f"prelude={prelude}", f"{key}.checkpoint=no/such.pt")
    assert len(found) == 1 and found[0].startswith(f"{key}.checkpoint: there is no file no/such.pt"), found
    assert f"{key}.checkpoint=null" in found[0] and f"{key}.checkpoint_optional=true" in found[0]


def test_a_checkpoint_may_be_absent_where_that_is_asked_for():
    assert errors("teacher.checkpoint=no/such.pt", "teacher.checkpoint_optional=true") == []


def test_the_message_names_the_files_beside_it(tmp_path):
    torch.save({}, tmp_path / "teacher_best.pt")
    (found,) = errors(f"teacher.checkpoint={tmp_path / 'teacher.pt'}")
    assert f"beside it there are: {tmp_path / 'teacher_best.pt'}" in found


def test_an_empty_name_is_no_way_to_say_none():
    (found,) = errors("teacher.checkpoint=''")
    assert found == "teacher.checkpoint: is empty; give a file, or null for none"


@pytest.mark.slow
def test_a_folder_and_a_url_are_no_files(tmp_path):
    (found,) = errors(f"teacher.checkpoint={tmp_path}", "teacher.checkpoint_optional=true")
    assert "is a folder" in found
    (found,) = errors("student.checkpoint='https://example.org/net.pt'")
    assert found.startswith("student.checkpoint: got 'https://example.org/net.pt'") and "download" in found
    (found,) = errors("student.checkpoint='file:///no/such.pt'")
    assert found.startswith("student.checkpoint: there is no file /no/such.pt")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["checkpoint_key=model_ema", "drop_head=true"])
def test_how_to_read_a_file_without_a_file_is_an_error(how):
    (found,) = errors(f"student.{how}")
    assert found.startswith(f"student.{how.partition('=')[0]}: ") and "student.checkpoint=FILE" in found


@pytest.mark.slow
def test_a_file_that_is_there_passes(tmp_path):
    torch.save({}, tmp_path / "a net.pt")
    assert errors(f"teacher.checkpoint='{tmp_path / 'a net.pt'}'") == []
    assert errors(f"teacher.checkpoint='{(tmp_path / 'a net.pt').as_uri()}'") == []


def test_the_files_of_the_cifar_presets_may_be_absent():
    found = read(compose(["experiment=cifar100/kd_r32x4_r8x4", "dataset=fake"]))[0]
    assert found == []


@pytest.mark.slow
def test_the_command_line_refuses_to_start_and_to_plan(distill, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for more in ([], ["dry_run=true"]):
        code, _, err = distill(*tiny, "prelude=none", "teacher.checkpoint=no/such.pt", *more)
        assert code == 2 and "1. teacher.checkpoint: there is no file no/such.pt" in err and "2." not in err


def test_the_plan_says_what_is_random_and_what_was_loaded(distill, tiny, tmp_path):
    code, out, _ = distill(*tiny, "prelude=none", "dry_run=true", f"hydra.run.dir={tmp_path}")
    assert code == 0
    assert out.startswith("networks:\n  student: 1,586 parameters, random initialisation\n  teacher: ")
