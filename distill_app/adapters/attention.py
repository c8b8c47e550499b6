"""Adapters that learn which layer of one network goes with which of another: attention of SemCKD and AFD."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.adapters.maps import Resize
from distill_app.adapters.shapes import Shape, require_map
from distill_app.losses.numerics import require_at_least, require_positive

SIDES = ("student", "teacher")


def _require_layers(in_shape: Mapping[str, Sequence[Shape]], *, adapter: str) -> None:
    """Refuses what is not maps of some layers of both networks.

    Raises:
        ValueError: The shapes are none, or not of maps.
    """
    if not isinstance(in_shape, Mapping) or set(in_shape) != set(SIDES) or not all(in_shape.values()):
        raise ValueError(
            f"{adapter} reads maps of some layers of both networks: "
            "source: {student: [student.stage3, student.stage4], teacher: [teacher.stage3, teacher.stage4]}"
        )
    for side in SIDES:
        for shape in in_shape[side]:
            require_map(shape, adapter=adapter, argument=side)


class CrossLayerProjections(nn.Module):
    """SemCKD's regressors: every map of the student's as a prediction of every map of the teacher's.

    conv1x1 (to twice the target's channels), BN, ReLU, conv3x3, BN, ReLU, conv1x1, no biases, one regressor for each
    pair. A source that is larger than its target is average-pooled first; a smaller one keeps its size, and
    `losses.SemanticCalibration` pools the teacher's map instead.

    Chen, Mei, Zhang, Wang, Feng, Chen 2021, https://arxiv.org/abs/2012.03236.

    Args:
        in_shape: (B, C, H, W) of each source.
        out_shape: The same of each target.
    """

    def __init__(self, in_shape: Sequence[Shape], out_shape: Sequence[Shape]):
        super().__init__()
        _require_layers({"student": in_shape, "teacher": out_shape}, adapter="CrossLayerProjections")
        self.regressors = nn.ModuleList(
            nn.ModuleList(self._regressor(source, target) for target in out_shape) for source in in_shape
        )

    @staticmethod
    def _regressor(source: Shape, target: Shape) -> nn.Sequential:
        size = [min(side, other) for side, other in zip(source[2:], target[2:], strict=True)]
        wide = 2 * target[1]
        return nn.Sequential(
            Resize(size),
            nn.Conv2d(source[1], wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, wide, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, target[1], 1, bias=False),
        )

    def forward(self, features: Sequence[Tensor]) -> list[list[Tensor]]:
        """Maps of the sources -> for each source, its prediction of each target."""
        return [
            [regressor(feature) for regressor in regressors.children()]
            for feature, regressors in zip(features, self.regressors.children(), strict=True)
        ]


class BatchSimilarityAttention(nn.Module):
    """SemCKD's attention: which of the teacher's layers a layer of the student's should learn from, for each image.

    a[b, i, j] = softmax over j of <q_i[b], k_j[b]>,  q_i, k_j = L2-normalised MLP of row b of the Gram matrix F F^T

    F is a map flattened to (B, D), not normalised; the MLPs are Linear(B, 2 (B // 4)), ReLU, Linear to B // 4.

    Chen, Mei, Zhang, Wang, Feng, Chen 2021, https://arxiv.org/abs/2012.03236. The width of the MLPs is the batch size,
    and the attention depends on the order of the samples in the batch, as in the authors' code. Deliberately different:
    rows of a smaller batch (the last of an epoch, the share of one process) are filled up with zeros; the authors' code
    skips it. Computed in float32: the products are too large for fp16.

    Args:
        in_shape: {student: shapes of maps, teacher: shapes of maps}.
        batch_size: The largest batch.
        temperature: Of the softmax; 1, or the root of the batch size in later code of the authors.

    Raises:
        ValueError: The shapes are not of maps of both networks, or there is no such batch or temperature.
    """

    whole_batch = True

    def __init__(self, in_shape: Mapping[str, Sequence[Shape]], *, batch_size: int, temperature: float = 1.0):
        super().__init__()
        _require_layers(in_shape, adapter="BatchSimilarityAttention")
        require_at_least(batch_size, 1, argument="batch_size")
        require_positive(temperature, argument="temperature")
        self.batch_size, self.temperature = max(batch_size, 2), temperature  # one sample has nothing to be like
        self.keys = nn.ModuleList(self._mlp() for _ in in_shape["teacher"])
        self.queries = nn.ModuleList(self._mlp() for _ in in_shape["student"])

    def _mlp(self) -> nn.Sequential:
        width = max(self.batch_size // 4, 1)
        return nn.Sequential(nn.Linear(self.batch_size, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, features: Mapping[str, Sequence[Tensor]]) -> Tensor:
        """{student: maps, teacher: maps} -> (B, student's layers, teacher's layers).

        Raises:
            ValueError: The batch is larger than `batch_size`.
        """
        student, teacher = features["student"], [feature.detach() for feature in features["teacher"]]
        if len(student[0]) > self.batch_size:
            raise ValueError(
                f"BatchSimilarityAttention was built for batches of up to {self.batch_size}, got {len(student[0])}: "
                f"set module.batch_size"
            )
        with torch.autocast(student[0].device.type, enabled=False):
            queries = torch.stack([self._embed(*pair) for pair in zip(student, self.queries, strict=True)], dim=1)
            keys = torch.stack([self._embed(*pair) for pair in zip(teacher, self.keys, strict=True)], dim=1)
            return F.softmax(queries @ keys.transpose(1, 2) / self.temperature, dim=2)

    def _embed(self, feature: Tensor, mlp: nn.Module) -> Tensor:
        rows = feature.flatten(1).to(next(mlp.parameters()).dtype)
        similarity = F.pad(rows @ rows.T, (0, self.batch_size - len(rows)))
        return F.normalize(mlp(similarity), dim=1)


class _NormedLinear(nn.Module):
    """A linear layer with batch norm."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.linear, self.norm = nn.Linear(before, after), nn.BatchNorm1d(after)

    def forward(self, rows: Tensor) -> Tensor:
        return self.norm(self.linear(rows))


class CrossLayerAttention(nn.Module):
    """AFD's attention: from which of the student's layers each layer of the teacher's is best learnt, for each image.

    a[b, t, s] = softmax over s of (<W_t(k_s[b]), q_t[b]> + <p_t, p_s>) / sqrt(width)

    with queries q_t = BN(Linear(pooled F_t)) and keys k_s = ReLU(BN(Linear(pooled F_s))) of the maps F, W one linear
    layer with batch norm, a block of it for each of the teacher's layers, over the keys of all layers together, and
    learnt positions p.

    Ji, Heo, Park 2021, https://arxiv.org/abs/2102.02973. In train mode it needs more than one sample a batch.

    Args:
        in_shape: {student: shapes of maps, teacher: shapes of maps}.
        width: Of queries and keys; 128 in the authors' code.

    Raises:
        ValueError: The shapes are not of maps of both networks.
    """

    def __init__(self, in_shape: Mapping[str, Sequence[Shape]], *, width: int = 128):
        super().__init__()
        _require_layers(in_shape, adapter="CrossLayerAttention")
        student, teacher = (list(in_shape[side]) for side in SIDES)
        self.teacher_positions = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(teacher), width)))
        self.student_positions = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(student), width)))
        self.keys = nn.ModuleList(_NormedLinear(shape[1], width) for shape in student)
        self.bilinear = _NormedLinear(width, width * len(teacher))
        self.queries = nn.ModuleList(_NormedLinear(shape[1], width) for shape in teacher)

    def forward(self, features: Mapping[str, Sequence[Tensor]]) -> Tensor:
        """{student: maps, teacher: maps} -> (B, teacher's layers, student's layers)."""
        student = [feature.mean(dim=(2, 3)) for feature in features["student"]]
        teacher = [feature.detach().mean(dim=(2, 3)) for feature in features["teacher"]]
        keys = torch.stack([F.relu(key(pooled)) for key, pooled in zip(self.keys, student, strict=True)], dim=1)
        queries = torch.stack([query(pooled) for query, pooled in zip(self.queries, teacher, strict=True)], dim=1)
        batch, layers, width = keys.shape
        turned = self.bilinear(keys.flatten(0, 1)).view(batch, layers, len(teacher), width)
        positions = self.teacher_positions @ self.student_positions.T
        scores = (torch.einsum("bstd,btd->bts", turned, queries) + positions) / width**0.5
        return F.softmax(scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores, dim=2)
