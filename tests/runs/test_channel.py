"""Warnings have one channel: whoever warns, console and log hear it once."""

import logging
import sys
import warnings
from pathlib import Path

import pytest

from distill_app.runs.channel import Console, one_channel
from distill_app.runs.tracking import Tracker
from distill_app.words import warn


@pytest.fixture
def root():
    """The root logger as it is in a program, without the handlers of the tests."""
    logger = logging.getLogger()
    kept, logger.handlers = logger.handlers, []
    yield logger
    logger.handlers = kept


def heard(folder: Path) -> list[str]:
    lines = (folder / "train.log").read_text().splitlines()
    return [line.split(" ", 2)[2] for line in lines]


def test_python_libraries_and_the_program_reach_console_and_log(tmp_path, capsys, root):
    with Tracker(tmp_path) as tracker, one_channel(tracker):
        warn("the program")
        warnings.warn("of Python", stacklevel=1)
        logging.getLogger("some.library").warning("a %s", "library")
        logging.getLogger("some.library").error("an error")
        logging.getLogger("some.library").info("chatter")
    assert [line.split(" (UserWarning")[0] for line in heard(tmp_path)] == [
        "WARNING warning: the program",
        "WARNING warning: of Python",
        "WARNING warning: some.library: a library",
        "WARNING warning: some.library: an error",
    ]
    err = capsys.readouterr().err.splitlines()
    assert [f"WARNING {line}" for line in err] == heard(tmp_path)
    assert f"(UserWarning, {__file__}:" in err[1]


def test_each_text_is_told_once(tmp_path, capsys, root):
    with Tracker(tmp_path) as tracker, one_channel(tracker), warnings.catch_warnings():
        warnings.simplefilter("always")
        for _ in range(5):
            warn("again")
            warnings.warn("and again", stacklevel=1)
            logging.getLogger("library").warning("and again and again")
    assert len(heard(tmp_path)) == len(capsys.readouterr().err.splitlines()) == 3


def test_afterwards_everything_is_as_it_was(tmp_path, root):
    before = warnings.showwarning, list(root.handlers)
    with pytest.raises(ZeroDivisionError), one_channel(Console()):
        _ = 1 / 0
    assert (warnings.showwarning, list(root.handlers)) == before


def test_what_was_told_before_the_run_had_a_log_is_in_its_log_and_not_told_again(tmp_path, capsys, root):
    with one_channel(Console()):
        warn("early")
        with Tracker(tmp_path) as tracker, one_channel(tracker):
            warn("early")
            warn("late")
    assert capsys.readouterr().err == "warning: early\nwarning: late\n"
    assert heard(tmp_path) == ["WARNING early", "WARNING warning: late"]


def test_what_others_show_is_not_shown_twice(tmp_path, capsys, root):
    root.addHandler(logging.StreamHandler(sys.stderr))
    with Tracker(tmp_path) as tracker, one_channel(tracker):
        logging.getLogger("library").warning("shown by its handler")
    assert capsys.readouterr().err == "shown by its handler\n"
    assert heard(tmp_path) == ["WARNING library: shown by its handler"]


def test_a_library_that_keeps_its_records_to_itself_is_in_the_log(tmp_path, root):
    aside = logging.getLogger("aside")
    aside.propagate = False
    try:
        with Tracker(tmp_path) as tracker, one_channel(tracker):
            aside.warning("to itself")
        aside.warning("afterwards")
    finally:
        aside.propagate = True
    assert heard(tmp_path) == ["WARNING aside: to itself"]


def test_a_record_that_cannot_be_formatted_is_told_all_the_same(tmp_path, root):
    root.handlers = []  # that of the tests would raise
    with Tracker(tmp_path) as tracker, one_channel(tracker):
        logging.getLogger("library").warning("%d of %d", 1)
    assert heard(tmp_path) == ["WARNING warning: library: %d of %d"]
