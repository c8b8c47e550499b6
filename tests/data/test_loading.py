"""What a loader says of samples that make no batch, whichever process finds it."""

import pytest
import torch
from torch.utils.data import Dataset

from distill_app.data import EpochOrder, Samples, make_loader
from distill_app.errors import DataError


class Odd(Dataset):
    """Small images, of which one is another than the others."""

    def __init__(self, odd):
        self.odd = odd

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.odd if index == 4 else (torch.zeros(3, 4, 4, dtype=torch.uint8), index)


IMAGE = torch.zeros(3, 4, 4, dtype=torch.uint8)
ODD = {
    "size": ((torch.zeros(3, 5, 4, dtype=torch.uint8), 0), r"come out in several sizes \(stack expects .*3, 5, 4"),
    "text": ((IMAGE, "a"), "what the samples of a batch hold, labels or other things, is not of one kind"),
    "none": ((IMAGE, None), r"^dataset: item 4 has no label \(None\)"),
    "type": ((IMAGE.int(), 0), r"^image 4: the image is a tensor of torch\.int32"),
}


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ODD)
def test_samples_that_make_no_batch_are_told_in_words(kind, workers):
    odd, expected = ODD[kind]
    order = EpochOrder(6, batch_size=6, seed=0, stage="train", shuffle=False)
    samples = Samples(Odd(odd), seed=0, stage="train")
    loader = make_loader(samples, order=order, num_workers=workers, device=torch.device("cpu"))
    with pytest.raises(DataError, match=expected) as caught:
        list(loader)
    assert "Traceback" not in str(caught.value)


class Broken(Dataset):
    """A program error in a data set."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        raise KeyError("no such column")


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_mistake_in_a_program_keeps_its_own_error(workers):
    order = EpochOrder(6, batch_size=6, seed=0, stage="train", shuffle=False)
    loader = make_loader(
        Samples(Broken(), seed=0, stage="train"), order=order, num_workers=workers, device=torch.device("cpu")
    )
    with pytest.raises(KeyError, match="no such column"):
        list(loader)


def test_whole_numbers_of_any_type_come_as_int64():
    for label in (torch.tensor(1, dtype=torch.uint8), torch.tensor(1, dtype=torch.int32), IMAGE.numpy()[0, 0, 0]):
        order = EpochOrder(2, batch_size=2, seed=0, stage="train", shuffle=False)
        samples = Samples([(IMAGE, label)] * 2, seed=0, stage="train")
        (batch,) = make_loader(samples, order=order, num_workers=0, device=torch.device("cpu"))
        assert batch["target"].dtype == torch.int64
