"""What was typed in another way than it works: the message names the one line that does."""

import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from distill_app.check.command_line import composition_errors
from distill_app.check.flags import flag_errors, ordered, stored_run_errors
from distill_app.check.quick import read
from distill_app.check.quoting import quoted
from distill_app.check.suggest import Suggestions, typed
from distill_app.config.tree import compose, compose_mounted
from distill_app.errors import ConfigError

# what is typed -> the lines that the message proposes
MEANT = {
    "optimizer=adam": ["optimizer@stage.optimizer=adam"],
    "scheduler=cosine": ["scheduler@stage.scheduler=cosine"],
    "model=resnet50": ["model@teacher=resnet50", "model@student=resnet50"],
    "teacher=resnet50": ["model@teacher=resnet50"],
    "student=resnet18": ["model@student=resnet18"],
    "arch=resnet50": ["model@teacher=resnet50", "model@student=resnet50"],
    "model.teacher=resnet50": ["model@teacher=resnet50"],
    "stage.scheduler=cosine": ["scheduler@stage.scheduler=cosine"],
    "loss=kl": ["loss@method.stages.distill.losses.kd=kl", "loss@method.stages.distill.losses.ce=kl"],
    "method.stages.distill.losses.kd=hint": ["loss@method.stages.distill.losses.kd=hint"],
    "recipe=imagenet_sgd": ["stage=imagenet_sgd"],
    "methd=at": ["method=at"],
    "lr=0.1": ["stage.lr=0.1"],
    "learning_rate=0.1": ["stage.lr=0.1"],
    "optimizer.lr=0.1": ["stage.lr=0.1"],
    "epochs=5": ["stage.epochs=5"],
    "batch_size=8": ["stage.batch_size=8"],
    "optimizer.weight_decay=0.1": ["stage.optimizer.weight_decay=0.1"],
    "temperature=2": ["method.stages.distill.losses.kd.loss.temperature=2"],
    "num_workers=2": ["runtime.num_workers=2"],
    "student.num_classes=10": ["student.net.num_classes=10"],
    "trainer.max_epochs=3": ["runtime.max_epochs=3"],
}
# These compose; the check finds them, before torch is imported.
COMPOSED = {
    "stage.optimizer=adam": ["optimizer@stage.optimizer=adam"],
    "method.stages.distill.optimizer=adam": ["+optimizer@method.stages.distill.optimizer=adam"],
    "student.net=resnet18": ["model@student=resnet18"],
    "++lr=1": ["stage.lr=1"],
    "stage.scheduler.schedule=cosine": ["scheduler@stage.scheduler=cosine"],
}


def proposed(message: str) -> list[str]:
    """What a message says to write, as a shell would hand it on."""
    (text,) = re.findall(r"write ('.*')", message)
    return [word for part in text.split(" or ") for word in shlex.split(part)]


def errors_of(*overrides: str) -> list[str]:
    try:
        return read(compose(overrides))[0]
    except Exception as error:
        return list(composition_errors(error, overrides, quick=True))


@pytest.fixture(scope="module")
def default():
    """The default config to look for keys in."""
    return Suggestions(*compose_mounted())


@pytest.fixture(scope="module")
def told():
    """The message for each of the overrides that cannot be composed, all typed at once."""
    found = {message.split(": ")[0]: message for message in errors_of(*MEANT)}
    return {given: found[given.split("=")[0]] for given in MEANT}


@pytest.mark.parametrize("given", MEANT)
def test_what_was_meant_is_proposed(given, told):
    assert proposed(told[given]) == MEANT[given], told[given]


def test_all_keys_and_values_that_do_not_fit_are_told_from_the_one_composition_that_failed(monkeypatch):
    line = ["lr=0.1", "stage.epochs=x", "+method.name=b", "~stage.nothing", "stage.batch_size=0"]
    with pytest.raises(Exception, match="lr") as raised:
        compose(line)
    monkeypatch.setattr("distill_app.check.line.compose_mounted", None)
    keys = [message.split(": ")[0] for message in composition_errors(raised.value, line, quick=True)]
    assert keys == ["lr", "stage.epochs", "method.name", "stage.nothing", "stage.batch_size"]


@pytest.mark.slow
@pytest.mark.parametrize("given", COMPOSED)
def test_an_option_given_as_a_value_is_told_with_the_line_that_chooses_it(given):
    (message,) = errors_of(given)
    assert proposed(message) == COMPOSED[given], message


@pytest.mark.slow
@pytest.mark.parametrize("line", sorted({line for lines in (MEANT | COMPOSED).values() for line in lines}))
def test_what_is_proposed_composes(line):
    compose([line])


@pytest.mark.slow
@pytest.mark.parametrize(("given", "option"), [("+optimizer=adam", "adam"), ("optimizer=SGD", "sgd")])
def test_a_group_is_told_as_such_with_a_plus_and_in_capitals(given, option):
    (message,) = errors_of(given)
    assert proposed(message) == [f"optimizer@stage.optimizer={option}"]


def test_a_group_without_such_an_option_lists_what_there_is():
    (message,) = errors_of("optimizer=zzz")
    assert "unknown option 'zzz' (there are: adam, adamw, nesterov, sgd)" in message
    assert "optimizer@stage.optimizer=NAME" in message


def test_a_group_that_an_experiment_brings_is_told_with_the_experiment():
    (message,) = errors_of("pair=vgg13_vgg8")
    assert message.endswith("it belongs to an experiment: write experiment=cifar100/benchmark pair=vgg13_vgg8")


def test_a_wrong_option_of_a_group_of_an_experiment_is_told_once_and_not_of_the_experiment():
    messages = [text for text in errors_of("experiment=cifar100/benchmark", "pair=vgg13_vgg9") if "root" not in text]
    assert len(messages) == 1
    assert messages[0].startswith("pair: unknown option 'vgg13_vgg9'; did you mean 'vgg13_vgg8'?")


def test_a_key_below_a_group_says_where_the_group_is():
    (message,) = errors_of("model.foo=1")
    assert "the group model is at student, teacher" in message


def test_a_mounted_term_is_switched_off_by_its_key():
    (message,) = errors_of("loss@method.stages.distill.losses.kd=null")
    assert "to switch it off, write 'method.stages.distill.losses.kd=null'" in message


VALUES = [
    "epoch=2-step=9.pt",
    "a (1).pt",
    "größe.pt",
    "{x}.pt",
    "{x}",
    "[a].pt",
    "[a]",
    "run(1).pt",
    "it's & (b).pt",
    'say "a" & b.pt',
    "a\\b(c).pt",
    "日本/語.pt",
    "ck/best #1!.pt",
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_with_signs_of_the_grammar_is_quoted_so_that_it_is_read_back(value):
    line = quoted(f"teacher.checkpoint={value}")
    (word,) = shlex.split(typed(line))
    assert OverridesParser.create().parse_override(word).value() == value


@pytest.mark.slow
@pytest.mark.parametrize("value", ["epoch=2-step=9.pt", "größe (1).pt", "[a]"])
def test_the_quoted_form_is_proposed_and_composes(value):
    (message,) = errors_of(f"teacher.checkpoint={value}")
    (line,) = proposed(message)
    assert "has signs that need quotes" in message and compose([line]).teacher.checkpoint == value


@pytest.mark.slow
def test_a_value_with_a_comma_may_be_a_sweep_a_list_or_one_text():
    (message,) = errors_of("teacher.checkpoint=a,b.pt")
    assert "sweep over them with -m, or write [a,b.pt] for a list" in message
    (line,) = shlex.split(re.search(r"or ('.*') for one text", message)[1])
    assert compose([line]).teacher.checkpoint == "a,b.pt"
    for numbers in ("seed=0,1", "stage.lr=0.1,1e-3", "method=kd,at"):
        assert "for one text" not in errors_of(numbers)[0]


def test_what_has_no_value_gets_no_quotes():
    assert quoted("a b") is None and quoted("stage") is None and quoted("a=") is None


@pytest.mark.slow
def test_an_optional_group_may_be_null():
    default = compose()
    assert compose(["debug=null", "experiment=null"]) == compose(["debug=none", "experiment=none"]) == default
    assert compose(["prelude=null"]).prelude.schedule == [] != default.prelude.schedule
    assert compose(["debug=one_batch"]) != default


@pytest.mark.slow
def test_a_sweep_may_have_a_point_without_an_optional_group():
    assert errors_of("debug=null,one_batch")[0].startswith("debug: 'null,one_batch' are several values")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (["dataset=digits", "-m", "seed=0,1"], ["-m", "dataset=digits", "seed=0,1"]),
        (["a=1", "--cfg", "job", "b=2", "--resolve"], ["--cfg", "job", "--resolve", "a=1", "b=2"]),
        (["a=1", "-c", "job", "-p", "student"], ["-c", "job", "-p", "student", "a=1"]),
        (["a=1", "--config-dir=mine", "--multi"], ["--config-dir=mine", "--multi", "a=1"]),
        (["a=1", "--info", "b=2"], ["--info", "a=1", "b=2"]),
        (["a=1", "--info", "defaults", "b=2"], ["--info", "defaults", "a=1", "b=2"]),
        (["a=1", "-cd", "mine", "stage.lr=-1", "~b", "+c=1"], ["-cd", "mine", "a=1", "stage.lr=-1", "~b", "+c=1"]),
        (["seed=0,1", "a=1", "-m", "--config-name", "x"], ["-m", "--config-name", "x", "seed=0,1", "a=1"]),
    ],
)
def test_flags_may_stand_anywhere(line, wanted):
    assert ordered(line).arguments == wanted and ordered(line).wrong == []


@pytest.mark.parametrize(
    ("line", "writes"),
    [
        (["--seed=3"], "write 'seed=3'"),
        (["a=1", "--seed", "3"], "write 'seed=3'"),
        (["--dry-run"], "write 'dry_run=true'"),
        (["--dry_run=false"], "write 'dry_run=false'"),
        (["--epochs", "5"], "write 'stage.epochs=5'"),
        (["--lr=0.1"], "write 'stage.lr=0.1'"),
        (["--stage.lr=0.1"], "write 'stage.lr=0.1'"),
        (["--batch-size", "32"], "write 'stage.batch_size=32'"),
        (["--optimizer=adam"], "write 'optimizer@stage.optimizer=adam'"),
        (["-lr", "0.1"], "write 'stage.lr=0.1'"),
        (["--multrun"], "did you mean '--multirun'?"),
        (["--zzzz"], "a setting is written key=value"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_setting_typed_as_a_flag_is_told_as_the_override_it_is(line, writes, default):
    (message,) = flag_errors(ordered(line), default)
    assert message.startswith("unknown flag '-") and writes in message


@pytest.mark.slow
def test_flags_that_there_are_not_are_told_with_what_else_is_wrong(distill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = distill("sede=1", "--dry-run", "+deda=1")
    lines = err.splitlines()
    assert code == 2 and len(lines) == 4 and "dry_run=true" in lines[1] and "sede" in lines[2] and "deda" in lines[3]
    assert list(tmp_path.iterdir()) == []


def test_hydras_flags_that_name_a_stored_run_say_what_to_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notes = tmp_path / "a run" / ".hydra"
    notes.mkdir(parents=True)
    (notes / "overrides.yaml").write_text("[]")
    (tmp_path / "a run" / "config_resolved.yaml").write_text("seed: 1")
    wanted = "write: distill rerun 'a run' seed=1"
    for flags in (
        ["--config-path", "a run/.hydra", "--config-name", "config"],
        ["--config-path", "a run", "--config-name", "config_resolved"],
        ["--config-dir", "a run/.hydra"],
        ["--config-name", "a run/config_resolved"],
        ["--experimental-rerun", "a run/.hydra/config.pickle"],
    ):
        (message,) = stored_run_errors([*flags, "seed=1"])
        assert message.startswith(f"{flags[0]}: ") and wanted in message
    (absolute,) = stored_run_errors(["-cp", str(notes), "-cn", "config"])
    assert f"distill rerun '{tmp_path}/a run'" in absolute
    (tmp_path / "mine").mkdir()
    assert stored_run_errors(["--config-dir", "mine", "--config-name", "config", "seed=1"]) == []


def test_a_primary_config_of_ones_own_must_be_built_on_ours(tmp_path, monkeypatch, distill):
    monkeypatch.chdir(tmp_path)
    # Without our settings, Hydra logs to a stream that is closed after this test.
    monkeypatch.setattr(logging.getLogger(), "handlers", list(logging.getLogger().handlers))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "other.yaml").write_text("seed: 1\n")
    code, _, err = distill("--config-dir", "mine", "--config-name", "other")
    assert code == 2 and "begin the defaults list of a file of yours with `- config`" in err
    code, _, err = distill("--config-dir", "mine", "--config-name", "othr")
    assert code == 2 and "--config-name: unknown config 'othr'; did you mean 'other'?" in err
    code, _, err = distill("--config-path", "mien")
    assert code == 2 and f"--config-path: {tmp_path}/mien is not a folder" in err


@pytest.mark.parametrize(
    "line",
    [
        "lr=0.1",
        pytest.param("stage.lr=abc", marks=pytest.mark.slow),
        "+deda=1",
        pytest.param("--lr=0.1", marks=pytest.mark.slow),
    ],
)
def test_a_wrong_key_or_type_ends_without_the_import_of_torch(line, tmp_path):
    program = """
import sys
from distill_app.cli import main
try:
    main(sys.argv[1:])
except SystemExit as exit:
    assert exit.code == 2, exit.code
assert "torch" not in sys.modules
"""
    command = [sys.executable, "-c", program, line]
    home = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=home, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_from_python_the_errors_are_those_of_the_command_line(distill, tmp_path, monkeypatch):
    from distill_app import compose as api_compose

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        api_compose(["methd=kd", "lr=0.1"])
    _, _, err = distill("methd=kd", "lr=0.1")
    assert [line[5:] for line in err.splitlines()[1:]] == raised.value.errors
