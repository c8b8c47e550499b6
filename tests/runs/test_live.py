"""The progress at a terminal: what it shows at any width, and that it goes away."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from rich.console import Console

from distill_app.runs.live import LiveStage, on_terminal
from distill_app.runs.tracking import Tracker


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def at_terminal(monkeypatch):
    """Puts a terminal in the place of stderr; its width is that of COLUMNS."""

    def put(term="xterm"):
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setenv("TERM", term)
        return sys.stderr

    return put


def lines(live, width):
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    live._console = console
    console.print(live.picture())
    return console.file.getvalue().rstrip("\n").splitlines()


@pytest.mark.parametrize("width", [200, 100, 60, 40, 24])
def test_every_term_the_best_speed_and_what_is_left_fit_into_any_width(at_terminal, width):
    at_terminal()
    live = LiveStage("distill", epochs=10, steps=100, done=0)
    live.advance(250)
    texts = ["loss 1.23", "ce 0.5", "kd 0.73", "attention 0.001", "lr 0.1", "data wait 3%"]
    live.values(texts, images_per_second=1234.5)
    live.best = "best 86.18%"
    shown = lines(live, width)
    live.close()
    text = " ".join(shown)
    assert all(len(line) <= width for line in shown), shown
    assert all(part in text for part in [*texts, "best 86.18%", "1,234 img/s", "25%", "3/10"]), text
    assert width < 60 or "distill epoch 3/10" in text


def test_a_run_shows_it_prints_above_it_and_leaves_nothing_of_it(at_terminal, tmp_path, capsys, monkeypatch):
    terminal = at_terminal()
    monkeypatch.setenv("COLUMNS", "100")
    values = {"losses": {"kd": 0.5}, "total": 1.0, "lr": 0.1, "images_per_second": 10.0, "data_wait": 0.5}
    with Tracker(tmp_path) as tracker:
        tracker.start_stage("hint", epochs=2, steps_per_epoch=1)
        for epoch in range(2):
            tracker.advance()
            tracker.step(epoch=epoch, step=0, batch_size=4, **values)
            tracker.epoch(stage="hint", epoch=epoch, metrics={"loss_total": 1.0})
        tracker.saving("SIGTERM")
    shown = terminal.getvalue()
    assert "hint epoch 2/2" in shown and "kd 0.5" in shown and "data wait 50%" in shown and "saving" in shown
    assert capsys.readouterr().out.splitlines() == [
        "stage hint: 2 epochs of 1 steps", "hint epoch 1/2  loss 1", "hint epoch 2/2  loss 1", "SIGTERM: saving",
    ]  # fmt: skip
    tail = shown[shown.rindex("saving") :]
    assert tail.count("\x1b[2K") >= 2 and tail.rstrip("\r").endswith("\x1b[2K"), "the picture is taken away"
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), "and the cursor is there again"


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_terminal_that_takes_no_lines_back_gets_plain_lines(at_terminal, tmp_path, term):
    terminal = at_terminal(term)
    assert on_terminal() == (term == "xterm")
    with Tracker(tmp_path) as tracker:
        tracker.start_stage("hint", epochs=1, steps_per_epoch=1)
    assert ("\x1b" in terminal.getvalue()) == (term == "xterm")


REAL = """
import sys
from distill_app.runs.tracking import Tracker
with Tracker(sys.argv[1]) as tracker:
    tracker.start_stage("a_stage_with_a_long_name", epochs=1, steps_per_epoch=2)
    tracker.advance(2)
"""


@pytest.mark.slow
def test_a_real_terminal_of_40_columns_has_no_longer_lines(tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    command = [sys.executable, "-c", REAL, str(tmp_path)]
    environment = {**os.environ, "TERM": "xterm"}
    for name in ("COLUMNS", "NO_COLOR"):
        environment.pop(name, None)
    subprocess.run(command, stderr=theirs, stdout=subprocess.DEVNULL, env=environment, check=True, timeout=60)
    shown = os.read(ours, 65536).decode()
    plain = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in re.split(r"[\r\n]+", shown)]
    assert any(line.startswith("1/1 ") and line.rstrip().endswith("0.0 s") for line in plain), plain
    assert max(map(len, plain)) <= 40 and "\x1b[?25h" in shown
