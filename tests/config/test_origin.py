"""An argument that is left over from a merge: which file it came from, and what to type."""

import re
import shlex

import pytest

from distill_app import compose
from distill_app.check.quick import check
from distill_app.config.build import Builder
from distill_app.config.origin import left_over
from distill_app.errors import ConfigError

KD = "method.stages.distill.losses.kd"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replaced", "key", "file", "choice"),
    [
        (f"{KD}.loss._target_=torch.nn.MSELoss", f"{KD}.loss.temperature", "loss/kl.yaml", None),
        (
            "stage.scheduler.schedule._target_=torch.optim.lr_scheduler.CosineAnnealingLR",
            "stage.scheduler.schedule.pct_start",
            "scheduler/onecycle.yaml",
            "scheduler@stage.scheduler=cosine",
        ),
        (
            "stage.optimizer._target_=torch.optim.Adam",
            "stage.optimizer.nesterov",
            "optimizer/nesterov.yaml",
            "optimizer@stage.optimizer=adam",
        ),
    ],
)
def test_the_message_names_the_file_and_the_ways_out(replaced, key, file, choice, errors_of, tiny, composed):
    errors = errors_of(*tiny, "prelude=none", replaced)
    (error,) = [each for each in errors if each.startswith(f"{key}: ")]
    # Nobody knows here which option was chosen: every file is named that sets such an argument.
    assert re.search(rf"left over from [^,;]*\b{re.escape(file)}", error) and "since dicts merge" in error
    assert (f"choose '{choice}'" in error) == (choice is not None)
    # All that is proposed to be taken out, taken out
    outs = [shlex.split(word)[0] for each in errors for word in re.findall(r"take it out: ('~[^']*')", each)]
    cleaned = composed(*tiny, "prelude=none", replaced, *outs)
    assert not [each for each in check(cleaned) if "left over" in each or "takes no" in each]


def test_a_method_of_ones_own_that_replaces_a_loss_is_told_of_the_other_way(tmp_path, errors_of, tiny):
    (tmp_path / "method").mkdir()
    text = "defaults: [kd, _self_]\nname: hard\nstages: {distill: {losses: {kd: {loss: {_target_: %s}}}}}\n"
    (tmp_path / "method" / "hard.yaml").write_text(text % "torch.nn.MSELoss")
    (error,) = errors_of(*tiny, "prelude=none", "method=hard", config_dirs=[str(tmp_path)])
    assert f"{KD}.loss.temperature: torch.nn.MSELoss takes no such argument" in error and "loss/kl.yaml" in error
    assert "a term of another name into method.stages.distill.losses of a method file, and kd: null beside it" in error


def test_a_target_that_takes_anything_and_refuses_it_later_is_told_too():
    # As every module without an __init__ of its own: its signature says *args, **kwargs. No option was chosen here, so
    # that all files are named that set such an argument.
    conf = {"_target_": "torch.nn.Flatten", "temperature": 4.0}
    with pytest.raises(ConfigError, match=r"left over from .*\bloss/kl\.yaml"):
        Builder().build(conf, key=f"{KD}.loss")
    conf["_target_"] = "torch.nn.Module"
    with pytest.raises(ConfigError, match=r"takes no argument 'temperature'; .*left over from .*\bloss/kl\.yaml"):
        Builder().build(conf, key=f"{KD}.loss")


def test_an_argument_that_was_typed_is_left_over_from_nowhere(errors_of, tiny):
    (error,) = errors_of(*tiny, "prelude=none", f"+{KD}.loss.temprature=3")
    assert "did you mean 'temperature'?" in error and "left over" not in error
    assert left_over("stage.optimizer", "momentum", {"_target_": "torch.optim.SGD", "momentum": 0.77}) is None
    assert left_over("nowhere.at.all", "x", {"_target_": "a.b", "x": 1}) is None


def test_what_is_null_gets_a_value_before_it_is_taken_out():
    words = ["dataset=fashion_det", "stage=fashion_det", "dataset.task._target_=distill_app.tasks.Classification"]
    text = left_over("dataset.task", "pad_to", compose(words).dataset.task)
    (line,) = re.findall(r"take it out: (.*?), or", text)
    assert "pad_to" not in compose([*words, *shlex.split(line)]).dataset.task
