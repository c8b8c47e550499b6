"""Networks that users bring along, each with something of its own."""

from torch import Tensor, nn


class _Small(nn.Module):
    def __init__(self, num_classes: int = 10, channels: int = 3):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.fc = nn.Linear(8, num_classes)

    def features(self, images: Tensor) -> Tensor:
        return self.body(images).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images))


class SeveralOutputs(_Small):
    """Answers twice while training, as GoogLeNet and Inception do."""

    def __init__(self, num_classes: int = 10):
        super().__init__(num_classes)
        self.aux = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        features = self.features(images)
        return (self.fc(features), self.aux(features)) if self.training else self.fc(features)


class LooksAtValues(_Small):
    """Branches on a value, which has none on a device without storage."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        return self.fc(features if features.mean().item() > -1e9 else features.neg())


class FailsInTraining(_Small):
    """Runs in eval mode alone."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("not while training")
        return super().forward(images)


class OneChannel(_Small):
    """Takes grey images."""

    def __init__(self, num_classes: int = 10):
        super().__init__(num_classes, channels=1)


class RMSNormed(_Small):
    """Has a norm without a mean."""

    def __init__(self, num_classes: int = 10):
        super().__init__(num_classes)
        self.norm = nn.RMSNorm(8)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.norm(self.features(images)))
