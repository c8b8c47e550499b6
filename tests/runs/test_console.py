"""A console that goes away: nothing that is said there ends what is done here."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill_app.runs.console import outlasted

CHECKOUT = str(Path(__file__).parents[2])


def shell(command: str, folder: Path) -> subprocess.CompletedProcess:
    variables = {**os.environ, "PYTHONPATH": CHECKOUT, "PYTHON": sys.executable}
    variables.pop("HYDRA_FULL_ERROR", None)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


TALK = """
import logging, sys, warnings
from distill_app.runs.console import outlasted
with outlasted():
    logging.basicConfig(stream=sys.stdout)
    for number in range(20_000):
        print("a line to stdout", number)
        print("a line to stderr", number, file=sys.stderr)
        logging.error("logged")
    open("end.txt", "w").write("reached")
"""


@pytest.mark.slow
@pytest.mark.parametrize("console", ["2>&1 | head -n 1", "2>/dev/null | head -n 1", ">&- 2>&-", ">&- 2>/dev/null"])
def test_work_goes_on_without_a_console(tmp_path, console):
    (tmp_path / "talk.py").write_text(TALK)
    done = shell(f'"$PYTHON" talk.py {console}', tmp_path)
    assert (tmp_path / "end.txt").read_text() == "reached"
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr
    assert "BrokenPipe" not in done.stderr and "Logging error" not in done.stderr


def test_a_file_opened_later_does_not_become_the_missing_console(tmp_path):
    program = "from distill_app.runs.console import outlasted\nimport os\nwith outlasted():\n"
    program += "    file = open('log.txt', 'w')\n    os.write(1, b'a library of C')\n    file.write('mine')\n"
    (tmp_path / "late.py").write_text(program)
    assert shell('"$PYTHON" late.py >&- 2>&- <&-', tmp_path).returncode == 0
    assert (tmp_path / "log.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--info", "--help", "--info defaults", "--cfg job"])
def test_what_shows_config_is_quiet_in_front_of_head(tmp_path, words):
    done = shell(f'"$PYTHON" -m distill_app {words} | head -n 1', tmp_path)
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) == 1


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text):
        raise OSError(5, "Input/output error")


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_terminal_that_was_closed_is_gone_and_a_full_disk_is_an_error(monkeypatch):
    for stream, ends in ((Gone(), False), (Full(), True)):
        monkeypatch.setattr(sys, "stdout", stream)
        with outlasted():
            if ends:
                with pytest.raises(OSError, match="No space"):
                    print("x")
            else:
                print("x")
                print("y")
    assert isinstance(sys.stdout, Full)


def test_a_console_of_ascii_gets_names_with_umlauts(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with outlasted():
        print("K\xf6ln", flush=True)
    assert raw.getvalue() == b"K\\xf6ln\n"


def test_streams_are_as_before_afterwards(capsys):
    before = sys.stdout, sys.stderr
    with outlasted(), outlasted():
        print("said")
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr().out == "said\n"
