"""One run as its folder tells it: running, done or failed, why, and how to go on."""

import shutil
import warnings

import pytest

from distill_app.errors import explain
from distill_app.runs.lifecycle import recorded, short_cause
from distill_app.runs.status import Status, state_of
from distill_app.runs.tracking import Tracker

CONFIG = {"runtime": {"allow": ["timm", "mypkg"]}}


def work(folder, *, do=lambda: None) -> None:
    with Tracker(folder) as tracker, recorded(folder, tracker=tracker, config=CONFIG):
        do()


def test_what_a_library_warns_of_is_in_the_log_of_the_run(tmp_path, capsys):
    work(tmp_path, do=lambda: warnings.warn("the sky is falling", stacklevel=1))
    assert "WARNING warning: the sky is falling (UserWarning, " in (tmp_path / "train.log").read_text()
    assert "the sky is falling" in capsys.readouterr().err


def fail() -> None:
    raise RuntimeError("the loss\nis a banana")


def test_a_run_is_running_and_then_done(tmp_path):
    states: list[str | None] = []
    work(tmp_path, do=lambda: states.append(state_of(Status(tmp_path).read())))
    assert states == ["running"] and Status(tmp_path).read()["state"] == "done"


def test_a_crash_leaves_its_traceback_in_the_log_and_its_cause_in_the_status(tmp_path, capsys):
    with pytest.raises(RuntimeError, match="banana"):
        work(tmp_path, do=fail)
    log = (tmp_path / "train.log").read_text()
    assert "ERROR Traceback (most recent call last):" in log and "in fail" in log
    assert "ERROR RuntimeError: the loss" in log and "ERROR is a banana" in log
    record = Status(tmp_path).read()
    assert (record["state"], record["reason"]) == ("failed", "RuntimeError: the loss is a banana")
    assert capsys.readouterr() == ("", ""), "whoever called says it on the console, once"


def test_an_interruption_says_how_to_go_on(tmp_path):
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        work(tmp_path, do=interrupt)
    hint = f"to go on: distill resume {tmp_path} --allow mypkg"
    assert caught.value.__notes__ == [hint]
    assert f"interrupted; {hint}" in (tmp_path / "train.log").read_text()
    assert Status(tmp_path).read()["reason"] == "interrupted"


def test_a_folder_that_was_removed_hides_no_error(tmp_path, capsys):
    def remove_and_fail() -> None:
        shutil.rmtree(tmp_path / "run")
        fail()

    with pytest.raises(RuntimeError, match="banana"):
        work(tmp_path / "run", do=remove_and_fail)
    assert "cannot be written" in capsys.readouterr().err


def test_a_full_disk_hides_no_error(tmp_path, monkeypatch):
    def fill_and_fail() -> None:
        def full(*arguments, **keywords):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("distill_app.runs.status.write_json", full)
        fail()

    with pytest.raises(RuntimeError, match="banana"):
        work(tmp_path, do=fill_and_fail)
    assert "ERROR RuntimeError: the loss" in (tmp_path / "train.log").read_text()


def test_a_cause_is_one_line_of_bounded_length():
    text = short_cause(ValueError("a\n b" + "c" * 9000))
    assert text.startswith("ValueError: a bccc") and len(text) < 600 and "\n" not in text


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(30, "Read-only file system", "/x/run"), "/x/run: Read-only file system; name a folder that can be"),
        (OSError(28, "No space left on device"), "No space left on device; make room, then go on"),
        (FileNotFoundError(2, "No such file or directory", "a"), "a: No such file or directory"),
    ],
)
def test_errors_of_the_system_are_told_with_what_to_do(error, told):
    text, code = explain(error)
    assert code == 1 and text is not None and text.startswith(f"error: {told}") and "Errno" not in text
