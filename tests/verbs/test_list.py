"""`distill list` and `distill show`: what there is, one option in full, and options of the user's own."""

import subprocess
import sys

import pytest
import yaml
from omegaconf import OmegaConf

from distill_app.cli import main
from distill_app.config.groups import options_of
from distill_app.config.tree import compose
from distill_app.verbs import list as verb

OWN = """
defaults: [kd, _self_]
name: cosine
about: {title: Angles of logits, paper: "Doe 2031, https://example.org/1", know: Not published.}
"""


def told(capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a verb."""
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.mark.parametrize("kind", ["methods", "models", "losses"])
def test_a_kind_alone_is_listed(kind, capsys):
    short, long = (told(capsys, *words) for words in ([kind], ["list", kind]))
    assert short == long and short[0] == 0 and short[1]


def test_the_list_names_every_method_with_kind_title_needs_and_paper(capsys, monkeypatch):
    monkeypatch.setattr(verb, "gains", dict)
    code, out, _ = told(capsys, "list", "methods")
    head, *lines = out.splitlines()
    assert head.split() == ["method", "kind", "what", "it", "is", "needs", "paper"]
    assert code == 0 and sorted(line.split()[0] for line in lines) == options_of("method")
    line = next(line for line in lines if line.startswith("fitnet "))
    assert "features" in line and "FitNets, hints" in line and "a stage before" in line
    assert line.endswith("Romero et al. 2015, https://arxiv.org/abs/1412.6550")


def test_the_list_shows_what_methods_gave_on_each_data_set(monkeypatch):
    monkeypatch.setattr(verb, "gains", lambda: {"digits": {"kd": 4.56, "at": -0.2}, "photos": {}})
    head, *rows = verb.methods([])
    assert head[:4] == ("method", "kind", "on digits", "on photos")
    assert {row[0]: row[2] for row in rows if row[2] != "-"} == {"kd": "+4.6", "at": "-0.2"}
    assert {row[3] for row in rows} == {"-"}


def test_one_method_is_told_with_formula_stages_losses_and_advice(capsys):
    code, out, _ = told(capsys, "show", "method=fitnet")
    text = " ".join(out.split())
    assert code == 0
    for part in ("mean (R(F_s) - F_t)^2", "stage hint", "stage distill", "1 x MSELoss of", "RepDistiller"):
        assert part in text
    assert "moves the hint" in text and "experiment=cifar100/fitnet_r32x4_r8x4" in text
    assert "distill method=fitnet" in text


@pytest.mark.slow
@pytest.mark.parametrize("words", [["taps", "resnet8"], ["data", "check", "dataset=digits"], ["show", "method=at"]])
def test_a_folder_of_ones_own_that_is_not_there_is_refused_by_every_verb_that_takes_one(capsys, tmp_path, words):
    code, _, err = told(capsys, *words, "--config-dir", str(tmp_path / "nosuch"))
    assert code == 2 and "is no folder" in err


@pytest.mark.parametrize("flag", ["--config-dir", "-cd"])
def test_methods_of_a_folder_of_ones_own_are_listed_and_told(tmp_path, capsys, flag):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "cosine.yaml").write_text(OWN)
    _, out, _ = told(capsys, "list", "methods", flag, str(tmp_path))
    assert "cosine" in out and "Angles of logits" in out and "fitnet" in out
    code, out, _ = told(capsys, "show", "method=cosine", flag, str(tmp_path))
    assert code == 0 and "Not published." in out and "stage distill" in out
    assert "temperature" not in out.split("stage distill")[0], "what is told of kd is not told of it"


def test_a_method_that_is_not_there_is_refused_with_the_nearest(capsys):
    code, _, err = told(capsys, "show", "method=fitnets")
    assert code == 2 and "did you mean 'fitnet'?" in err


def test_a_folder_that_is_not_there_is_refused(capsys, tmp_path):
    code, _, err = told(capsys, "list", "methods", "--config-dir", str(tmp_path / "nosuch"))
    assert code == 2 and "nosuch" in err


def test_a_method_that_does_not_compose_is_told_as_on_the_command_line(tmp_path, capsys):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("defaults: [kdd, _self_]\nname: mine\n")
    code, _, err = told(capsys, "show", "method=mine", "--config-dir", str(tmp_path))
    assert code == 2 and "kdd" in err and "Traceback" not in err


def test_a_file_that_is_no_yaml_is_named(tmp_path, capsys):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("about: [")
    code, _, err = told(capsys, "list", "methods", "--config-dir", str(tmp_path))
    assert code == 2 and f"{tmp_path}/method/mine.yaml: while parsing" in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_show_imports_nothing_heavy():
    script = """
import sys
from distill_app.cli import main
try:
    main(["show", "method=crd"])
except SystemExit as exit:
    assert not exit.code
heavy = {"torch", "torchvision", "numpy", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "ContrastiveRepresentation" in done.stdout, done.stderr


def test_every_kind_is_listed_with_how_many_there_are(capsys):
    code, out, _ = told(capsys, "list")
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines() if line and "distill" not in line}
    assert code == 0 and rows["methods"] == str(len(options_of("method"))) and rows["datasets"].isdecimal()
    assert {"models", "datasets", "experiments", "stages", "losses", "launchers", "trackers", "taps"} <= set(rows)
    for kind in rows:
        assert told(capsys, "list", kind)[1].splitlines()


@pytest.mark.parametrize("group", ["model", "dataset", "stage", "launcher", "tracker", "prelude"])
def test_every_option_says_in_its_file_what_it_is(capsys, group):
    lines = told(capsys, "list", group)[1].splitlines()
    assert [line.split()[0] for line in lines] == options_of(group)
    assert [line for line in lines if len(line.split()) < 2] == []


def test_the_options_of_the_default_are_marked(capsys):
    marked = [line.split()[0] for line in told(capsys, "list", "networks")[1].splitlines() if "(default)" in line]
    assert marked == ["cres_w24", "plain_16_32_64"]


def test_a_kind_that_is_not_there_is_refused_with_the_nearest(capsys):
    code, _, err = told(capsys, "list", "metods")
    assert code == 2 and "did you mean 'methods'?" in err


def test_every_value_says_which_file_or_override_it_is_from(capsys):
    code, out, _ = told(capsys, "show", "model@student=timm", "student.net.model_name=resnet10t")
    lines = dict(line.strip().split("  # ") for line in out.splitlines() if "  # " in line)
    found = {key.strip(): source for key, source in lines.items()}
    assert code == 0 and found["_target_: timm.create_model"] == "model/timm.yaml"
    assert found["model_name: resnet10t"] == "student.net.model_name=resnet10t"
    assert found["num_classes: ${dataset.num_classes}"] == "model/timm.yaml, = 10"
    code, shown, _ = told(capsys, "show", "model@student=resnet18")
    assert code == 0 and "  # model/taps/resnet" in shown
    assert "drop_head" not in out and "defaults that nobody changed: --all" in out


@pytest.mark.slow
def test_all_of_it_has_the_defaults_too_and_is_the_composed_part(capsys):
    code, out, _ = told(capsys, "show", "stage=imagenet_sgd", "stage.lr=0.3", "--all")
    assert code == 0 and "patience: null" in out
    shown = OmegaConf.create(yaml.safe_load(out))
    assert shown.stage == compose(["stage=imagenet_sgd", "stage.lr=0.3"]).stage


def test_what_chooses_no_group_is_refused(capsys):
    code, _, err = told(capsys, "show", "metod=at")
    assert code == 2 and "did you mean 'method'?" in err and "write distill show method=at" in err
