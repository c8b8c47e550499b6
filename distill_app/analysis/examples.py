"""Images on which student and teacher disagree, small enough to be shown in numbers."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor

MOST = 24
_PIXELS = 96  # of the longer side


class Disagreements:
    """Keeps of all samples those that say most: the teacher is right, and the student is sure of something else.

    After them come those where the student is right and the teacher is not, then those where both are wrong.

    Args:
        most: How many are kept.
    """

    def __init__(self, *, most: int = MOST):
        self._most, self._kept = most, []  # type: ignore[var-annotated]
        self._seen = 0

    def add(self, images: Any, *, labels: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Adds a batch.

        Args:
            images: As the data set gives them; kept are those that are uint8 (B, 3, H, W).
            labels: (B,), on the CPU.
            student: Class probabilities (B, C), on the CPU.
            teacher: The same of the teacher.
        """
        (sure, mine), (certain, theirs) = student.max(dim=1), teacher.max(dim=1)
        rank = torch.where(theirs == labels, 2.0, torch.where(mine == labels, 1.0, 0.0)) + sure * 0.999
        for row in torch.nonzero(mine != theirs).flatten().tolist():
            entry = {
                "index": self._seen + row,
                "true": int(labels[row]),
                "student": int(mine[row]),
                "teacher": int(theirs[row]),
                "student_confidence": float(sure[row]),
                "teacher_confidence": float(certain[row]),
            }
            self._kept.append((float(rank[row]), entry, _pixels(images, row)))
        self._kept.sort(key=lambda each: -each[0])
        del self._kept[self._most :]
        self._seen += len(labels)

    def found(self) -> list[dict[str, Any]]:
        """The entries, the most telling first; `image` is a PNG as a data URI, None where inputs are no images."""
        return [{**entry, "image": None if pixels is None else thumbnail(pixels)} for _, entry, pixels in self._kept]


def _pixels(images: Any, row: int) -> Tensor | None:
    is_image = isinstance(images, Tensor) and images.dtype == torch.uint8 and images.dim() == 4 and images.shape[1] == 3
    return images[row].cpu().clone() if is_image else None


def thumbnail(pixels: Tensor) -> str:
    """An image, uint8 (3, H, W), as a small PNG in a data URI."""
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    image.thumbnail((_PIXELS, _PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def label_of(batch: Mapping[str, Any]) -> Tensor:
    """The class of every sample (B,): a target may be a class, or the shares of all classes."""
    target: Tensor = batch["target"]
    return target.argmax(dim=1) if target.dim() == 2 else target
