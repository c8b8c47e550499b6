"""docs/split.md: its commands run at small size, and its programs in two processes; verbs and report tell of a cut."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deploy_fixtures import write_images
from docs_fixtures import ROOT, commands

import distill_app

pytestmark = pytest.mark.slow
PAGE = ROOT / "docs" / "split.md"
BLOCKS = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
SHORT = (
    "runtime.max_epochs=1",
    "runtime.max_steps_per_epoch=2",
    "runtime.threads=1",
    "tracker=none",
    "prelude=none",
    "teacher.allow_random=true",
)
DETECTOR = ("dataset.train.count=16", "dataset.test.count=8", "dataset.validation_fraction=0")
DIGITS = ("dataset=digits", "model@teacher=plain_32_64_128", "stage=digits")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Runs of a detector, RUN, and of a classifier, digits/RUN, beside images."""
    folder = tmp_path_factory.mktemp("split")
    write_images(folder / "IMAGES")
    for under, data in (("", DETECTOR), ("digits", DIGITS)):
        line = next(words for words in commands(PAGE) if ("dataset=fashion_det" in words) == (under == ""))
        config = distill_app.compose([*line, *data, *SHORT])
        distill_app.run(config, output_dir=str(folder / under / "RUN"))
    return folder


def test_every_command_of_the_page_runs(place, distill, monkeypatch):
    monkeypatch.chdir(place)
    told = {}
    for words in commands(PAGE):
        if "=" in words[0]:
            small = [*DETECTOR, *SHORT] if "dataset=fashion_det" in words else [*DIGITS, *SHORT]
            words = [*words, *[each for each in small if each.split("=")[0] not in " ".join(words)]]
        code, out, err = distill(*words)
        assert code == 0 and out, f"{words}: {err}"
        told[" ".join(words)] = out
    assert "cut at features.0" in next(out for words, out in told.items() if "dry_run" in words)
    plain, in_bits = (json.loads(told[f"evaluate RUN{more}"]) for more in ("", " --eight-bits"))
    assert plain["cut"] == in_bits["cut"] and plain["cut"]["images"] == 8
    assert plain["cut"]["float32"] == 4 * 3 * 28 * 28 and plain["cut"]["eight_bit"] == 3 * 28 * 28 + 8
    assert "the tail behind the head answers as the whole network, to the bit" in told["export RUN --to split"]
    assert (place / "RUN/export/split/head.safetensors").is_file()
    summary = json.loads((place / "RUN/summary.json").read_text())
    rows = {row["network"]: row for row in summary["rows"]}
    assert rows["student"]["cut"] == plain["cut"] and "cut" not in rows["teacher"]


@pytest.mark.parametrize(("program", "under"), [("halves.py", ""), ("programs.py", "digits")])
def test_head_and_tail_run_in_two_processes(place, distill, program, under, monkeypatch, tmp_path):
    monkeypatch.chdir(place / under)
    bits = ["--eight-bits"] if program == "halves.py" else []
    assert distill("export", "RUN", "--to", "split", *bits)[0] == 0
    code = dict(BLOCKS)[program].replace('"cut.sock"', repr(str(tmp_path / "cut.sock")))
    (tmp_path / program).write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / program)]
    with subprocess.Popen([*command, "tail"], env=environment) as server:
        try:
            ends = time.monotonic() + 120
            while not (tmp_path / "cut.sock").exists() and server.poll() is None and time.monotonic() < ends:
                time.sleep(0.1)
            images = [str(place / "IMAGES" / name) for name in ("0.png", "1.png")]
            done = subprocess.run(
                [*command, "head", *images], env=environment, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stderr
            assert server.wait(timeout=60) == 0
        finally:
            server.kill()
    expected = "'0 boxes': (20, 4)" if program == "halves.py" else "'logits': (2, 10)"
    assert expected in done.stdout


def test_a_network_without_a_cut_is_refused(place, distill, monkeypatch):
    monkeypatch.chdir(place)
    for words in (["export", "RUN", "--to", "split"], ["evaluate", "RUN", "--eight-bits"]):
        code, _, err = distill(*words, "--network", "teacher")
        assert code == 2 and "teacher has no cut" in err
    code, _, err = distill("export", "digits/RUN", "--to", "onnx", "--eight-bits")
    assert code == 2 and "--eight-bits: is of --to split" in err


def test_the_report_tells_of_the_cut(place, distill, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    code, _, err = distill("report", "RUN", "--output", str(tmp_path))
    assert code == 0, err
    text = (tmp_path / "report.html").read_text()
    assert "bytes over the cut" in text and "9,408" in text and "2,360" in text and "head FLOPs" in text
