"""docs/deploy.md: every command and all code of it runs."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from deploy_fixtures import write_images

from distill_app.api import run as run_config
from distill_app.config.tree import compose

pytestmark = pytest.mark.slow
PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line, comments=True) for line in re.findall(r"^ {4}(distill .*)$", PAGE, re.MULTILINE)]


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the page exports to ONNX")
def test_every_command_of_the_page_runs_and_so_does_its_code(distill, tmp_path, monkeypatch, tiny, capsys):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "IMAGES")
    (tmp_path / "FOLDER").mkdir()
    run_config(compose([*tiny, "prelude=teacher", "debug=one_batch"]), output_dir="RUN")
    assert len(COMMANDS) > 20
    for _, *words in COMMANDS:
        capsys.readouterr()
        code, out, err = distill(*words)
        assert code == 0 and out, f"{words}: {err}"
    for name in ("state_dict/model.pt", "safetensors/model.safetensors", "torch_export/model.pt2", "onnx/model.onnx"):
        assert (tmp_path / "RUN" / "export" / name).is_file()
    assert (tmp_path / "student.md").is_file() and (tmp_path / "deployed" / "README.md").is_file()
    assert (tmp_path / "grid.png").is_file()
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, {})
