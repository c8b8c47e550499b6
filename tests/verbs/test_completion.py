"""Completion: what a line may go on with, and the scripts in shells that are really run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from distill_app.config.groups import options_of
from distill_app.verbs import VERBS
from distill_app.verbs.completion import SCRIPTS, completions

CHECKOUT = Path(__file__).parents[2]
NO_TORCH = """
import sys
from distill_app.cli import main
try:
    main(sys.argv[1:])
except SystemExit as exit:
    assert not exit.code
heavy = {"torch", "torchvision", "numpy", "hydra", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


def test_a_line_begins_with_a_verb_a_group_or_a_key():
    found = completions([""])
    assert set(VERBS) <= set(found) and {"method=", "model@student=", "dataset=", "seed=", "stage."} <= set(found)
    assert completions(["met"]) == ["method.", "method="] and completions(["model@s"]) == ["model@student="]


@pytest.mark.parametrize(
    ("line", "finds"),
    [
        (["method=fit"], ["method=fitnet"]),
        (["method=kd,fit"], ["method=kd,fitnet"]),
        (["seed=1", "model@teacher=resnet10"], ["model@teacher=resnet101"]),
        (["experiment=digits"], ["experiment=digits/kd"]),
        (["+stage.clip"], ["+stage.clip_grad_norm="]),
        (["stage.optimizer.mom"], ["stage.optimizer.momentum="]),
        (["runtime.compile="], ["runtime.compile=false", "runtime.compile=true"]),
        (["method=fitnet", "method.stages.hi"], ["method.stages.hint."]),
        (["method.stages.distill.losses."], ["method.stages.distill.losses.ce.", "method.stages.distill.losses.kd."]),
        (["method.stages.distill.epo"], ["method.stages.distill.epochs="]),
        (["model@student=timm", "student.net.model"], ["student.net.model_name="]),
        (["export", "RUN", "--t"], ["--to"]),
        (["export", "RUN", "--to", "o"], ["onnx"]),
        (["cache", "v"], ["verify"]),
        (["list", "meth"], ["methods"]),
        (["show", "method=fit"], ["method=fitnet"]),
        (["rerun", "RUN", "stage.lr"], ["stage.lr=", "stage.lr_scales="]),
        (["evaluate", "outp"], []),
        (["nonsense", "nowh"], []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_line_goes_on_with(line, finds):
    assert completions(line) == finds


def test_all_options_of_a_group_are_offered():
    assert completions(["method="]) == sorted(f"method={name}" for name in options_of("method"))


@pytest.mark.slow
def test_neither_torch_nor_hydra_is_imported():
    for line in (["method="], ["stage.optimizer."], [""]):
        command = [sys.executable, "-c", NO_TORCH, "completion", "words", "--", *line]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The environment of a shell in which `distill` is this checkout's."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "distill"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m distill_app "$@"\n')
    program.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(CHECKOUT)}


BASH = """
eval "$(distill completion bash)"
ask() {
    COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}
    _distill 2> /dev/null
    printf '%s|' "${COMPREPLY[@]}"; echo
}
cd "$1"
ask 'distill metho'
ask 'distill method=fitn'
ask 'distill seed=1 model@student=resnet1'
ask 'distill -m method=kd,fitn'
ask 'distill stage.optimizer.'
ask 'distill export some'
ask 'distill export run --to o'
ask 'distill teacher.checkpoint=some'
"""


@pytest.mark.slow
def test_bash_completes_groups_options_keys_verbs_and_files(command, tmp_path):
    (tmp_path / "some run").mkdir()
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", str(tmp_path)], env=command, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "method.|method=|",
        "fitnet|",  # bash has cut the word at =
        "resnet101|resnet110|resnet14|resnet152|resnet18|resnet18_bottleneck|resnet18_small|",
        "fitnet|",
        "|".join(
            f"stage.optimizer.{name}=" for name in ("_partial_", "_target_", "momentum", "nesterov", "weight_decay")
        )
        + "|",
        "some run|",
        "onnx|",
        "some run|",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_of_a_shell_is_one_for_it(shell, command, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(SCRIPTS[shell])
    subprocess.run([shell, "-n", str(tmp_path / "script")], env=command, check=True, timeout=60)


@pytest.mark.slow
def test_fish_completes_a_line(command):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    script = "distill completion fish | source; complete -C 'distill method=fitn'"
    done = subprocess.run(["fish", "-c", script], env=command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["method=fitnet"]


ZSH = """setopt NO_BEEP; autoload -Uz compinit; compinit -u -D; eval "$(distill completion zsh)"; echo BE''GIN"""


@pytest.mark.slow
def test_zsh_completes_a_line_at_the_press_of_a_key(command, tmp_path):
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    (tmp_path / "somefile").touch()
    told = {**command, "TERM": "dumb"}
    shell = pexpect.spawn("zsh", ["-f", "-i"], env=told, cwd=str(tmp_path), encoding="utf-8", timeout=60)
    shell.sendline(ZSH)
    shell.expect("BEGIN")
    for typed, becomes in {
        "method=fitn": "distill method=fitnet ",
        "stage.opt": "distill stage.optimizer.",
        "model@student=mobilenet_v3": "distill model@student=mobilenet_v3_",
        "export run --to o": "distill export run --to onnx ",
        "evaluate somef": "distill evaluate somefile ",
    }.items():
        shell.send(f"distill {typed}\t")
        shell.expect_exact(becomes)
        shell.send("\x15")  # the line is thrown away
    shell.close()


@pytest.mark.slow
def test_a_shell_that_is_not_known_is_refused(distill):
    code, _, err = distill("completion", "tcsh")
    assert code == 2 and "bash" in err
