"""An interpolation that fails is told where it was written."""

import pytest

from distill_app.check.quick import read


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage.lr=${stage.lrr}", "stage.lr: Interpolation key 'stage.lrr' not found"),
        ("stage.lr=${lr}", "stage.lr: Interpolation key 'lr' not found; did you mean '${prelude.params.lr}'?"),
        ("stage.epochs=${stage.epoch}", "stage.epochs: Interpolation key 'stage.epoch' not found"),
        (
            "teacher.name=${student.nam}-x",
            "teacher.name: Interpolation key 'student.nam' not found; did you mean '${student.name}'?",
        ),
        ("student.name=${.wieghts}", "student.name: Interpolation key '.wieghts' not found; did you mean '${student"),
        ("dataset.root=${nowhere}/x", "dataset.root: Interpolation key 'nowhere' not found"),
        ("+stage.optimizer.eps=${nope}", "stage.optimizer.eps: Interpolation key 'nope' not found"),
        ("stage.lr=${student.name}", "stage.lr: cannot be '${student.name}': Value 'plain_16_32_64' of type 'str'"),
        ("stage.epochs=${stage.lr}", "stage.epochs: cannot be '${stage.lr}': Value '0.4' of type 'float'"),
        ("stage.lr=${dataset}", "stage.lr: cannot be '${dataset}': it stands for a whole section"),
        ("stage.lr=${stage.lr}", "stage.lr: '${stage.lr}' leads back to stage.lr itself"),
        ("stage.lr=${method.stages.distill.lr}", "stage.lr: '${method.stages.distill.lr}' leads back to stage.lr"),
        ("dataset.root=${oc.env:NO_SUCH_ONE}", "dataset.root: '${oc.env:NO_SUCH_ONE}': Environment variable"),
        ("stage.lr=${foo:1}", "stage.lr: '${foo:1}': Unsupported interpolation type foo"),
        (
            'dataset.train_transform=[{_target_: x, size: "${dataset.imge_size}"}]',
            "dataset.train_transform[0].size: Interpolation key 'dataset.imge_size' not found; did you mean",
        ),
    ],
)
def test_what_was_typed_is_blamed_and_nothing_that_inherits_it(override, message, composed):
    (error,) = read(composed(override))[0]
    assert error.startswith(message)


def test_every_interpolation_that_fails_is_told_beside_other_errors(composed):
    errors = read(composed("stage.lr=${stage.lrr}", "teacher.name=${student.nam}", "+deda=1"))[0]
    assert [error.split(": ")[0] for error in errors] == ["deda", "teacher.name", "stage.lr"]
