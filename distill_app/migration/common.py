"""What all stages of a config share."""

from dataclasses import dataclass, field
from typing import Any

from distill_app.migration.ledger import Ledger
from distill_app.migration.networks import Network


@dataclass
class Common:
    """What all stages share: the networks, and what is said of the machine and the loading."""

    ledger: Ledger
    student: Network
    teacher: Network | None
    known: dict[str, Any] = field(default_factory=dict)  # adapters of the stages before
    runtime: dict[str, Any] = field(default_factory=dict)
    cache: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 1
    drop_last: bool = False
    wrappers: dict[str, Any] = field(default_factory=dict)
    positives: str | None = None
