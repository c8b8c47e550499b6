"""CRLD: a weak and a strong view."""

import pytest
import torch
from feature_fixtures import tensor

from distill_app import losses


def test_crld_of_two_equal_views_is_kd_by_the_sum_of_both_weights():
    student, teacher = (tensor(4, 5, seed=seed) for seed in (1, 2))
    loss = losses.CrossViewKL(weak_confidence=0.0, strong_confidence=0.0)
    twice = {"student": student.repeat_interleave(2, dim=0), "teacher": teacher.repeat_interleave(2, dim=0)}
    torch.testing.assert_close(loss(**twice), 5 * losses.KLDivergence()(student=student, teacher=teacher))


def test_crld_leaves_out_what_the_teacher_is_not_sure_of_and_counts_it_in_the_batch():
    sure, unsure = torch.tensor([9.0, 0, 0, 0]), torch.zeros(4)
    student = tensor(2, 4, seed=1).float()
    loss = losses.CrossViewKL(1.0, within=1.0, across=0.0)
    both = {"student": student.repeat(2, 1), "teacher": torch.stack([sure, unsure, unsure, unsure])}
    one = {"student": student, "teacher": torch.stack([sure, unsure])}
    torch.testing.assert_close(loss(**both), loss(**one) / 2)
    assert loss(student=student, teacher=torch.stack([unsure, sure])) == 0
    across = losses.CrossViewKL(1.0, within=0.0, across=1.0, strong_confidence=0.9)
    assert across(**one) == 0 and across(student=student, teacher=torch.stack([unsure, sure])) > 0


def test_crld_refuses_a_view_that_is_alone():
    with pytest.raises(ValueError, match=r"two rows for each image, got 3.*StrongView"):
        losses.CrossViewKL()(student=torch.zeros(3, 4), teacher=torch.zeros(3, 4))
