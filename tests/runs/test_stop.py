"""Signals: where they are heeded at once, where they wait, and whose they stay."""

import os
import pickle
import signal
import threading

import pytest

from distill_app.runs.stop import Interrupted, Stop


@pytest.fixture
def stop():
    for number in (signal.SIGTERM, signal.SIGHUP):  # nohup has a process ignore one of them
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Stop().listening() as made:
        yield made


def test_outside_it_ends_the_run_at_once(stop):
    with pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == 143 and str(caught.value) == "SIGTERM"


def test_inside_it_waits_until_somebody_looks(stop, capfd):
    with pytest.raises(Interrupted), stop.held():
        with stop.held():
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.requested is signal.SIGHUP
        stop.look()
        pytest.fail("looking ends it")
    assert "SIGHUP: finishing the step, then saving" in capfd.readouterr().err


def test_at_the_end_of_what_holds_it_it_is_heeded(stop):
    with pytest.raises(Interrupted, match="SIGINT"), stop.held():
        os.kill(os.getpid(), signal.SIGINT)


def test_another_error_is_not_hidden_by_it(stop):
    with pytest.raises(ZeroDivisionError), stop.held():
        os.kill(os.getpid(), signal.SIGINT)
        raise ZeroDivisionError


def test_an_echo_of_the_first_one_is_no_second_one(stop):
    with pytest.raises(Interrupted), stop.held():
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGTERM)


def test_they_are_given_back():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)}
    with Stop().listening():
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
        assert signal.getsignal(signal.SIGUSR2) == before[signal.SIGUSR2], "nobody here queues a job again"
    assert before == {number: signal.getsignal(number) for number in before}


def test_what_listened_for_a_requeue_is_handed_on(monkeypatch):
    came = []
    previous = signal.signal(signal.SIGUSR2, lambda number, frame: came.append(number))
    try:
        with Stop().listening() as stop, pytest.raises(Interrupted) as caught, stop.held():
            os.kill(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, previous)
    assert came == [] and caught.value.then is not None
    caught.value.then(signal.SIGUSR2, None)
    assert came == [signal.SIGUSR2]


def test_in_another_thread_there_are_none_and_that_is_no_error():
    found = []

    def listen() -> None:
        with Stop().listening() as stop:
            stop.look()
            found.append(stop.requested)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [None]


def test_it_passes_through_handlers_of_errors_and_between_processes():
    assert issubclass(Interrupted, KeyboardInterrupt) and not issubclass(Interrupted, Exception)
    assert pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM))).exit_code == 143
