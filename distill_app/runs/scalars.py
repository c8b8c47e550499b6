"""The numbers of a record of `metrics.jsonl`, with the names that trackers show them by."""

from collections.abc import Iterator, Mapping
from typing import Any


def scalars_of(record: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Tag, value and place on the x axis of everything in a record that is a number."""
    kind, stage, timing = record.get("kind"), record.get("stage"), record.get("timing") or {}
    clock = {name: timing[name] for name in timing if name != "time"}
    prefix: Any = stage
    if kind == "step":
        x = record["epoch"] * record["steps_per_epoch"] + record["step"]
        values = {"lr": record["lr"], "loss": record["total"], **clock}
        values |= {f"loss/{name}": value for name, value in record["losses"].items()}
        values |= {f"gradient_norm/{name}": value for name, value in record.get("gradient_norms", {}).items()}
    elif kind == "epoch":
        prefix, x, values = f"{stage}/epoch", record["epoch"], {**record["metrics"], **clock}
    else:
        prefix, x, values = f"test/{record.get('name', '')}", 0, {**record, **clock}
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}/{name}", value, x
