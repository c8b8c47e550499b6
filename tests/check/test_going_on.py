"""With which other epochs a run may go on: those with which the rates of what is over would have been the same."""

import pytest
from engine_fixtures import resolved

from distill_app.check.going_on import refuse_changes, refuse_lengths
from distill_app.errors import ConfigError, OtherExperiment
from distill_app.training.progress import Progress

pytestmark = pytest.mark.slow
TWO_STAGES = ("method=fitnet", "method.params.tap=stage1", "model@teacher=plain_8_16")
STEPS_OF_AN_EPOCH = 2  # 100 labelled images of digits in batches of 64


def refusal(*more: str, was: int = 4, now: int = 8, over: int = 2, units: int = 1, **progress) -> str:
    """What is said to another number of epochs of the stage `distill`; empty where the run may go on."""
    old, new = (resolved(*more, f"method.stages.distill.epochs={epochs}") for epochs in (was, now))
    at = Progress("distill", epoch=over, **progress)
    scheduled = old["stage"]["scheduler"]["schedule"] is not None or old["stage"]["warmup_epochs"]
    scheduler = {"last_epoch": over * units} if scheduled else None
    try:
        refuse_lengths(old, new, state={"progress": at.state(), "optimization": {"scheduler": scheduler}})
    except ConfigError as error:
        return str(error)
    return ""


def scheduler(name: str, **arguments) -> str:
    told = "".join(f", {key}: {value}" for key, value in arguments.items())
    return f"stage.scheduler.schedule={{_target_: torch.optim.lr_scheduler.{name}, _partial_: true{told}}}"


CONSTANT = "scheduler@stage.scheduler=constant"


@pytest.mark.parametrize(
    "overrides",
    [
        (CONSTANT,),
        ("scheduler@stage.scheduler=multistep", "stage.scheduler.schedule.milestones=[1,6]"),
        (CONSTANT, scheduler("StepLR", step_size=3)),
        (CONSTANT, scheduler("ExponentialLR", gamma=0.9)),
        (CONSTANT, scheduler("ReduceLROnPlateau", patience=1)),
        (CONSTANT, scheduler("CosineAnnealingLR", T_max=5)),
        (CONSTANT, scheduler("CosineAnnealingWarmRestarts", T_0=3)),
        (CONSTANT, "stage.warmup_epochs=3"),
        ("scheduler@stage.scheduler=multistep", "stage.scheduler.schedule.milestones=[3]", "stage.warmup_epochs=2"),
        (CONSTANT, "optimizer@stage.optimizer=adam", "+stage.lr_scales={student.stem: 0.1}"),
    ],
)
def test_a_schedule_that_does_not_depend_on_its_length_may_be_lengthened(overrides):
    assert refusal(*overrides) == ""
    assert refusal(*overrides, was=8, now=4, over=4) == ""


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        (("scheduler@stage.scheduler=cosine",), "cosine"),
        (("scheduler@stage.scheduler=cosine", "stage.warmup_epochs=1"), "cosine"),
        ((CONSTANT, scheduler("PolynomialLR")), "polynomial"),
        ((CONSTANT, scheduler("LinearLR")), "linear"),
    ],
)
@pytest.mark.parametrize("over", [1, 2, 4])
def test_a_schedule_whose_length_comes_from_the_epochs_cannot(overrides, kind, over):
    told = refusal(*overrides, over=over)
    assert told.startswith("method.stages.distill.epochs: 4 -> 8: "), told
    assert f"a {kind} schedule cannot be lengthened" in told and "use continue from the finished run, or rerun" in told


@pytest.mark.parametrize("over", [1, 3])
def test_a_schedule_by_step_is_played_in_steps(over):
    onecycle = ("scheduler@stage.scheduler=onecycle",)
    told = refusal(*onecycle, over=over, units=STEPS_OF_AN_EPOCH)
    assert "a one-cycle schedule cannot be lengthened" in told and "in epoch 1 would have been another one" in told
    fixed = (*onecycle, "+stage.scheduler.schedule.total_steps=30")
    assert refusal(*fixed, over=over, units=STEPS_OF_AN_EPOCH) == ""


def test_a_length_that_a_schedule_has_noted_counts_though_its_past_is_the_same():
    told = refusal(CONSTANT, scheduler("ConstantLR", factor=0.5))
    assert "a two-step schedule cannot be lengthened" in told and "in epoch 5 would" in told
    assert "from now on, since it has noted its old length" in told
    assert refusal(CONSTANT, scheduler("ConstantLR", factor=0.5, total_iters=3)) == ""


def test_epochs_that_are_over_cannot_be_taken_away_and_their_number_can_be_the_last():
    assert "3 epochs are over or under way, which is more" in refusal(CONSTANT, now=2, over=3)
    assert refusal(CONSTANT, now=3, over=3) == ""


def test_a_stage_that_is_over_keeps_its_epochs_and_one_to_come_may_have_any():
    old = resolved(*TWO_STAGES, "scheduler@stage.scheduler=onecycle")
    state = {"progress": Progress("hint", epoch=2).state(), "optimization": {"scheduler": {"last_epoch": 4}}}
    later = resolved(*TWO_STAGES, "scheduler@stage.scheduler=onecycle", "method.stages.distill.epochs=9")
    refuse_lengths(old, later, state=state)
    state["progress"] = Progress("distill", epoch=0, done={"hint": {}}).state()
    first = resolved(*TWO_STAGES, "scheduler@stage.scheduler=onecycle", "method.stages.hint.epochs=9")
    with pytest.raises(ConfigError, match="stage 'hint' is over; name a stage that is not"):
        refuse_lengths(old, first, state=state)


def test_before_an_epoch_is_over_there_is_nothing_to_keep():
    refuse_lengths(resolved(), resolved("stage.epochs=1"), state=None)


@pytest.mark.slow
def test_an_epoch_that_is_under_way_counts(tmp_path):
    old, new = resolved("stage.epochs=3"), resolved("stage.epochs=1")
    progress = Progress("distill", epoch=1, step=1).state()
    with pytest.raises(ConfigError, match="2 epochs are over or under way, which is more"):
        refuse_lengths(old, new, state={"progress": progress})


def test_settings_other_than_epochs_are_refused_with_the_difference(tmp_path):
    old = resolved()
    assert refuse_changes(tmp_path, old, resolved("stage.epochs=9"))
    assert not refuse_changes(tmp_path, old, resolved("runtime.num_workers=3", "checkpoint.keep=4"))
    with pytest.raises(OtherExperiment) as caught:
        refuse_changes(tmp_path, old, resolved("stage.epochs=9", "seed=3"))
    told = str(caught.value)
    assert "1 setting differs, there -> here:\n  seed: 0 -> 3\n" in told and "use continue" in told and "rerun" in told
