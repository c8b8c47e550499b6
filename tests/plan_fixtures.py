"""Typed configs whose objects are never built, for tests of what follows from a config alone."""

from typing import Any

from omegaconf import OmegaConf

from distill_app.config.schema import AppConf

TAPS = {f"stage{i}": f"layer{i}" for i in range(1, 5)} | {"logits": "fc"}
NET = {"net": {"_target_": "torch.nn.Identity"}, "taps": TAPS}
DATA = {"name": "a", "num_classes": 2, "image_size": 8, "train": {}, "test": {}, "task": {}}
SGD, ADAM = {"_target_": "torch.optim.SGD"}, {"_target_": "torch.optim.Adam"}
STEP = {"interval": "step", "schedule": {"_target_": "torch.optim.lr_scheduler.StepLR"}}


def app(method: dict[str, Any], **more: Any) -> AppConf:
    """A typed config with the stages of a method; nothing in it is built."""
    stage = {"epochs": 100, "lr": 0.1, "batch_size": 4, "optimizer": SGD}
    given = {
        "dataset": DATA,
        "stage": stage,
        "student": NET,
        "teacher": NET,
        "prelude": {"name": "none"},
        "launcher": {},
        "method": {"name": "m", "schedule": list(method.get("stages", {})), **method},
    }
    for key, value in more.items():
        given[key] = OmegaConf.merge(given.get(key, {}), value)
    conf = OmegaConf.merge(OmegaConf.structured(AppConf), given)
    OmegaConf.resolve(conf)
    return OmegaConf.to_object(conf)  # type: ignore[return-value]


def term(**inputs: Any) -> dict[str, Any]:
    return {"loss": {"_target_": "torch.nn.MSELoss"}, "inputs": inputs}
