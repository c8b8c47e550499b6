"""Every method in conf/method, on tiny networks of different widths and sizes: it steps, learns, trains what it should.

The list is read from the folder, so a new method is tested by being there.
"""

import math
from functools import lru_cache

import pytest
import torch
from engine_fixtures import changed, networks, runner, snapshot, train, trained
from method_fixtures import DETECTION, SEGMENTATION, TOKENS
from method_fixtures import tokens as vit
from omegaconf import DictConfig

from distill_app.config.groups import options_of
from distill_app.config.tree import compose
from distill_app.training.progress import Progress
from distill_app.training.stage import Stage

METHODS = [name for name in options_of("method") if name not in DETECTION]
# These stand for all in the fast tier.
CORE = ("ce", "ft", "kd", "multilabel_kd")
CORE_FIRST = [name if name in CORE else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
DATA = {
    "multilabel_kd": ("fake_multilabel", "dataset.image_size=16"),
    # What it learns of the last map is where it is active, and on digits that has one position.
    "afd": (
        "fake",
        "dataset.image_size=16",
        "dataset.train.size=48",
        "dataset.test.size=16",
        "dataset.validation_fraction=0",
    ),
}
MAPS = ("fashion_seg", "dataset.train.count=48", "dataset.test.count=16")
# Student and teacher differ in width and in the size of their maps; batch norm in both.
PAIRS = {"plain": ("plain_32_64_128", "plain_8_16"), "residual": ("resnet8", "plain_16_32_64")}


@lru_cache
def of_the_default(*overrides: str) -> DictConfig:
    return compose(overrides)


def overrides_of(method: str, pair: str = "plain") -> tuple[str, ...]:
    """The method on tiny networks; where it brings a student along, that one."""
    teacher, student = PAIRS[pair]
    own = of_the_default(f"method={method}").student != of_the_default().student
    networks = (f"model@teacher={teacher}", *(() if own else (f"model@student={student}",)))
    data = DATA.get(method, ("digits",))
    if method in TOKENS:
        wide, narrow = (24, 16) if pair == "plain" else (16, 24)
        data, networks = DATA["afd"], (*vit("teacher", width=wide), *vit("student", width=narrow))
    recipe = ("stage=digits", "stage.batch_size=16")
    if method in SEGMENTATION:
        data, recipe = MAPS, ("stage=fashion_seg", "stage.epochs=2", "stage.batch_size=4")
        networks = ("model@teacher=tiny_fpn_segmenter", f"model@student=tiny_fpn_segmenter{'_8' * (pair == 'plain')}")
    dataset, frozen = (f"dataset={data[0]}", *data[1:]), ("prelude=none", "teacher.allow_random=true")
    return (*dataset, *recipe, *frozen, f"method={method}", *networks)


def without_labels(method: str) -> tuple[str, ...]:
    """Switches the cross-entropy off in every stage that has another term: what is left is the method's own."""
    stages = of_the_default(f"method={method}").method.stages
    return tuple(f"method.stages.{name}.losses.ce=null" for name, conf in stages.items() if {"ce"} < set(conf.losses))


@pytest.mark.parametrize("pair", ["plain", pytest.param("residual", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", CORE_FIRST)
def test_two_steps_of_every_stage(tmp_path, method, pair):
    short = ("runtime.max_epochs=1", "runtime.max_steps_per_epoch=2")
    with runner(tmp_path, *short, base=overrides_of(method, pair)) as made:
        for plan in made.plans:
            built = Stage(plan, made.experiment)
            made.begin(built, None)
            losses = trained(built, Progress(built.plan.name, epoch=0), tracker=made.tracker, log_every=1).losses
            built.close()
            assert list(losses) == ["total", *plan.terms]
            assert all(math.isfinite(value) for value in losses.values())


# Adam does not mind that the weights of the methods range over five orders of magnitude.
STEADY = ("optimizer@stage.optimizer=adam", "scheduler@stage.scheduler=constant", "stage.lr=0.003")


@pytest.mark.slow
@pytest.mark.parametrize("method", CORE_FIRST)
def test_a_methods_own_loss_falls_on_a_fixed_batch(tmp_path, method):
    with runner(tmp_path, *STEADY, *without_labels(method), base=overrides_of(method)) as made:
        for plan in made.plans:
            built = Stage(plan, made.experiment)
            made.begin(built, None)
            built.begin_epoch(0)
            batch = built.task.prepare(next(iter(built.data.train)), device=built.device)
            given = built.frozen.run(batch)
            totals = []
            for _ in range(30):
                total, _ = built.step(batch, given)
                totals.append(float(total.detach()))
                total.backward()
                built.optimization.step()
            built.close()
            # Little is asked, since a bound such as VID's falls slowly.
            assert totals[-1] < totals[0] - 0.01 * abs(totals[0]), (plan.name, totals[0], totals[-1])


@pytest.mark.parametrize("method", CORE_FIRST)
def test_gradient_reaches_what_is_trained_and_nothing_else(tmp_path, method):
    with runner(tmp_path, base=overrides_of(method)) as made:
        for plan in made.plans:
            built = Stage(plan, made.experiment)
            made.begin(built, None)
            built.tracker = made.tracker
            trained = {id(parameter) for parameter in built.optimization.parameters}
            outside = {name: snapshot(net) for name, net in networks(made).items() if name not in plan.trained}
            frozen = {
                name: snapshot(module)
                for name, module in built.step.adapters.items()
                if name not in plan.trained_adapters
            }
            before = {name: value.detach().clone() for name, value in built.step.named_parameters()}
            total, _ = _one_step(built)
            for name, parameter in built.step.named_parameters():
                reached = parameter.grad is not None
                assert reached == (id(parameter) in trained), (plan.name, name)
            assert torch.isfinite(total)
            built.optimization.optimizer.zero_grad()
            train(built)
            moved = {name for name, p in built.step.named_parameters() if not p.detach().equal(before[name])}
            assert moved == {name for name, p in built.step.named_parameters() if id(p) in trained}, plan.name
            assert all(changed(networks(made)[name], state) == set() for name, state in outside.items())
            assert all(changed(built.step.adapters[name], state) == set() for name, state in frozen.items())
            built.close()


def _one_step(built: Stage):
    built.begin_epoch(0)
    batch = built.task.prepare(next(iter(built.data.train)), device=built.device)
    total, values = built.step(batch, built.frozen.run(batch))
    total.backward()
    return total, values
