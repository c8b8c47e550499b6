"""FGD's adapter: what a whole map says, added to each of its positions."""

from torch import Tensor, nn

from distill_app.adapters.shapes import Shape, require_map


class GlobalContext(nn.Module):
    """A global context block: F + W2 ReLU(LN(W1 c)), where c is the mean of F by a learnt attention over positions.

    W1 and W2 are 1x1 convolutions, to a share of the channels and back; W2 starts at zero, so that the map comes out as
    it is at first.

    Cao, Xu, Lin, Wei, Hu 2019, https://arxiv.org/abs/1904.11492, as FGD has it, with one for each network: Yang, Li,
    Shao, Shi, Yuan, Yuan 2022, https://arxiv.org/abs/2111.11837.

    Args:
        in_shape: (B, C, H, W) of the source.
        ratio: Which share of the channels lies in the middle.

    Raises:
        ValueError: The source is not a map.
    """

    def __init__(self, in_shape: Shape, *, ratio: float = 0.5):
        super().__init__()
        require_map(in_shape, adapter="GlobalContext", argument="in_shape")
        channels = in_shape[1]
        middle = max(int(ratio * channels), 1)
        self.attention = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Conv2d(channels, middle, 1), nn.LayerNorm([middle, 1, 1]), nn.ReLU(), nn.Conv2d(middle, channels, 1)
        )
        nn.init.kaiming_normal_(self.attention.weight)
        nn.init.zeros_(self.attention.bias)  # type: ignore[arg-type]
        for parameter in self.transform[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        attention = self.attention(feature).flatten(2).softmax(dim=2)  # (B, 1, HW)
        context = (feature.flatten(2) * attention).sum(dim=2)[:, :, None, None]
        added: Tensor = feature + self.transform(context)
        return added
