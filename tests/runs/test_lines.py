"""The line of an epoch: it fits, and what matters most is in it."""

import pytest

from distill_app.runs.lines import duration, epoch_line, leading_of
from distill_app.runs.metrics import Metric

METRICS = [Metric("accuracy", percent=True), Metric("loss", direction="min")]
VALUES = {
    "loss_total": 6.9184321,
    "loss_ce": 2.33,
    "loss_kd": 11.51,
    "validation_accuracy": 0.1,
    "validation_loss": 2.311,
    "validation_per_class": [0.1, 0.2],
}
CLOCK = {"seconds": 75.3, "data_wait": 0.0832}


def line(values=VALUES, *, head="distill epoch 12/240", best=0.12, metrics=METRICS, **more):
    return epoch_line(head, values, CLOCK, metrics=metrics, best=best, **more)


def test_loss_terms_the_leading_figure_the_best_and_the_time_are_in_it():
    found = line(head="d 1/2", width=200)
    assert found == (
        "d 1/2  loss 6.918  ce 2.33  kd 11.51  validation_accuracy 10.00%  best 12.00%  validation_loss 2.311  "
        "75 s  wait 8%"
    )


@pytest.mark.parametrize("width", [100, 60, 40])
def test_it_fits_into_any_width_with_the_figure_that_decides(width):
    many = {**VALUES, **{f"loss_term_of_a_long_name_{number}": 0.1 for number in range(20)}}
    found = line(many, width=width)
    assert len(found) <= width and found.startswith("distill epoch 12/240  loss 6.918")
    assert width < 60 or "validation_accuracy 10.00%" in found


def test_what_is_not_defined_and_stages_without_figures_are_told():
    assert "validation_accuracy -" in line({**VALUES, "validation_accuracy": None}, best=None)
    assert line({"loss_total": 1.0}, metrics=[], best=None) == "distill epoch 12/240  loss 1  75 s  wait 8%"


def test_the_leading_figure_is_that_of_the_network_itself_on_held_out_data():
    values = {"train_accuracy": 0.9, "student_ema_validation_accuracy": 0.3, "validation_accuracy": 0.2}
    assert leading_of(METRICS, values) == ("validation_accuracy", METRICS[0])
    assert leading_of(METRICS, {"loss_accuracy": 1.0}) is None and leading_of([], values) is None


@pytest.mark.parametrize(("seconds", "text"), [(0.42, "0.4 s"), (42, "42 s"), (700, "12 min"), (9000, "2.5 h")])
def test_times_have_two_digits(seconds, text):
    assert duration(seconds) == text
