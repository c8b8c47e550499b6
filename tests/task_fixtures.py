"""Networks, transforms and tasks of a user's own, where config can import them."""

import torch
from torch import Tensor, nn

from distill_app.tasks import Classification, Metric


class Net(nn.Module):
    """A small network; `style` says what it returns, beside or in the place of its logits."""

    def __init__(self, num_classes: int, style: str = "logits", width: int = 12):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.aux = nn.Linear(width, num_classes)
        self.fc = nn.Linear(width, num_classes)
        self.style = style

    def forward(self, x: Tensor):
        features = self.body(x)
        logits, aux = self.fc(features), self.aux(features)
        if self.style == "aux_in_training":
            return (logits, aux) if self.training else logits
        return {
            "logits": logits,
            "features_first": (features, logits),
            "aux_first": (aux, logits),
            "mapping": {"features": features, "aux": aux, "logits": logits},
            "nested": [(features,), {"out": [aux, logits]}],
            "mean": (logits + aux) / 2,
        }[self.style]


class Turned:
    """Turns image and label together: the label becomes the next one."""

    def __call__(self, image: Tensor, label: int) -> tuple[Tensor, int]:
        return image.rot90(int(torch.randint(4, ())), (1, 2)), (label + 1) % 10


class ImageAlone:
    def __call__(self, image: Tensor, label: int) -> Tensor:
        return image


class Joint(Classification):
    """Its transforms see image and label."""

    joint_transforms = True


class Faulty(Classification):
    """A task that is wrong in a way that only an evaluation shows."""

    def __init__(self, *, fault: str, normalize, num_classes):
        super().__init__(normalize=normalize, num_classes=num_classes)
        self.fault = fault
        if fault == "twice":
            self.metrics = [Metric("accuracy"), Metric("accuracy")]
        if fault == "reserved":
            self.metrics = [Metric("accuracy"), Metric("seconds")]

    def add(self, sums, answer, batch):
        if self.fault == "raises":
            raise KeyError("weights")
        super().add(sums, answer, batch)

    def figures(self, sums):
        figures = super().figures(sums)
        if self.fault == "undescribed":
            return figures | {"f1": 1.0}
        return {"loss": 1.0} if self.fault == "leading" else figures


class NoTask:
    """Has the look of a task."""

    metrics = ()
