"""`distill methods`: the list, one method in full, and methods of the user's own."""

import subprocess
import sys

import pytest

from distill_app.cli import main
from distill_app.config.tree import options_of

OWN = """
defaults: [kd, _self_]
name: cosine
about: {title: Angles of logits, paper: "Doe 2031, https://example.org/1", know: Not published.}
"""


def told(capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `distill methods`."""
    with pytest.raises(SystemExit) as stopped:
        main(["methods", *words])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def test_the_list_names_every_method_with_title_and_paper(capsys):
    code, out, _ = told(capsys)
    assert code == 0 and sorted(line.split()[0] for line in out.splitlines()) == options_of("method")
    line = next(line for line in out.splitlines() if line.startswith("fitnet "))
    assert "FitNets, hints" in line and line.endswith("Romero et al. 2015, https://arxiv.org/abs/1412.6550")


def test_one_method_is_told_with_formula_stages_losses_and_advice(capsys):
    code, out, _ = told(capsys, "fitnet")
    text = " ".join(out.split())
    assert code == 0
    for part in ("mean (R(F_s) - F_t)^2", "stage hint", "stage distill", "1 x MSELoss of", "RepDistiller"):
        assert part in text
    assert "moves the hint" in text and "experiment=cifar100/fitnet_r32x4_r8x4" in text
    assert "distill method=fitnet" in text


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--config-dir", "-cd"])
def test_methods_of_a_folder_of_ones_own_are_listed_and_told(tmp_path, capsys, flag):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "cosine.yaml").write_text(OWN)
    _, out, _ = told(capsys, flag, str(tmp_path))
    assert "cosine" in out and "Angles of logits" in out and "fitnet" in out
    code, out, _ = told(capsys, "cosine", flag, str(tmp_path))
    assert code == 0 and "Not published." in out and "stage distill" in out
    assert "temperature" not in out.split("stage distill")[0], "what is told of kd is not told of it"


def test_a_method_that_is_not_there_is_refused_with_the_nearest(capsys):
    code, _, err = told(capsys, "fitnets")
    assert code == 2 and "did you mean 'fitnet'?" in err


def test_a_folder_that_is_not_there_is_refused(capsys, tmp_path):
    code, _, err = told(capsys, "--config-dir", str(tmp_path / "nosuch"))
    assert code == 2 and "nosuch" in err


def test_a_method_that_does_not_compose_is_told_as_on_the_command_line(tmp_path, capsys):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("defaults: [kdd, _self_]\nname: mine\n")
    code, _, err = told(capsys, "mine", "--config-dir", str(tmp_path))
    assert code == 2 and "kdd" in err and "Traceback" not in err


def test_a_file_that_is_no_yaml_is_named(tmp_path, capsys):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("about: [")
    code, _, err = told(capsys, "--config-dir", str(tmp_path))
    assert code == 2 and f"{tmp_path}/method/mine.yaml: while parsing" in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_it_imports_nothing_heavy():
    script = """
import sys
from distill_app.cli import main
try:
    main(["methods", "crd"])
except SystemExit as exit:
    assert not exit.code
heavy = {"torch", "torchvision", "numpy", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "ContrastiveRepresentation" in done.stdout, done.stderr
