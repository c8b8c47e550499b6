"""What a network computes itself as a loss."""

from collections.abc import Mapping

from torch import Tensor, nn

from distill_app.words import unknown


class Own(nn.Module):
    """A loss that a network gives itself in train mode, such as torchvision's detectors: L, or sum_k w_k L_k.

    Args:
        weights: Name of a loss -> w_k, for a mapping of losses; those that are not named have the weight 1.

    Shapes: `value` a scalar, or a mapping from name to scalar (the address of all of a network's losses).
    """

    def __init__(self, weights: Mapping[str, float] | None = None):
        super().__init__()
        self.weights = dict(weights or {})

    def forward(self, value: Tensor | Mapping[str, Tensor]) -> Tensor:
        """The loss.

        Raises:
            TypeError: A mapping of other things than losses: the network is not trained, or gives none.
            ValueError: A weight for a loss that the network does not give.
        """
        if isinstance(value, Tensor):
            return value
        if not isinstance(value, Mapping) or not value or any(not isinstance(each, Tensor) for each in value.values()):
            raise TypeError(
                f"a network that gives its losses as a mapping is needed, it gives a {type(value).__name__}"
            )
        for name in self.weights:
            if name not in value:
                raise ValueError(f"weights: {unknown('loss', name, value)}")
        parts = [self.weights.get(name, 1.0) * each for name, each in value.items()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total
