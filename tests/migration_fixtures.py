"""Configs in the YAML of torchdistill, written here: small ones, of both versions."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from distill_app.errors import UsageError
from distill_app.migration.dialect import Tagged
from distill_app.migration.experiment import convert
from distill_app.migration.files import Imported

Place = tuple[Any, ...]
FOLDERS = """
datasets:
  &train digits/train: !import_call
    _root: &root !join ['{root}', '/digits']
    key: 'torchvision.datasets.ImageFolder'
    init:
      kwargs:
        root: !join [*root, '/train']
        transform: !import_call
          key: 'torchvision.transforms.Compose'
          init: {{kwargs: {{transforms: [
            !import_call {{key: 'torchvision.transforms.ToTensor', init: }},
            !import_call {{key: 'torchvision.transforms.Normalize',
              init: {{kwargs: &norm {{mean: [0.3, 0.3, 0.3], std: [0.4, 0.4, 0.4]}}}}}}]}}}}
  &val digits/val: !import_call
    key: 'torchvision.datasets.ImageFolder'
    init:
      kwargs:
        root: !join [*root, '/val']
        transform: !import_call
          key: 'torchvision.transforms.Compose'
          init: {{kwargs: {{transforms: [
            !import_call {{key: 'torchvision.transforms.ToTensor', init: }},
            !import_call {{key: 'torchvision.transforms.Normalize', init: {{kwargs: *norm}}}}]}}}}
"""
TORCH = "!import_get {key: 'torch.utils.data.RandomSampler'}"
LOADER = {"sampler": {"class_or_func": TORCH, "kwargs": None}, "kwargs": {"batch_size": 8, "num_workers": 0}}
ENDS = {
    "student_module_path": ".",
    "student_module_io": "output",
    "teacher_module_path": ".",
    "teacher_module_io": "output",
}
KD = {"criterion": {"key": "KDLoss", "kwargs": {**ENDS, "temperature": 3.0, "alpha": 0.3}}, "weight": 1.0}
CE = {
    "criterion": {"key": "CrossEntropyLoss", "kwargs": {"reduction": "mean"}},
    "criterion_wrapper": {
        "key": "SimpleLossWrapper",
        "kwargs": {
            "input": {"is_from_teacher": False, "module_path": ".", "io": "output"},
            "target": {"uses_label": True},
        },
    },
    "weight": 1.0,
}


def pair(student: str, teacher: str, io: str = "output") -> dict[str, Any]:
    """Two activations that a loss compares."""
    return {"student": {"io": io, "path": student}, "teacher": {"io": io, "path": teacher}, "weight": 1}


def compared(student: str, teacher: str, key: str = "MSELoss", **arguments: Any) -> dict[str, Any]:
    """A term of a loss of torch on two activations."""
    ends = {
        "input": {"is_from_teacher": False, "module_path": student, "io": "output"},
        "target": {"is_from_teacher": True, "module_path": teacher, "io": "output"},
    }
    wrapper = {"key": "SimpleLossWrapper", "kwargs": ends}
    return {"criterion": {"key": key, "kwargs": arguments}, "criterion_wrapper": wrapper, "weight": 1.0}


def side(*, hooks: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """What a stage says of one network."""
    hook = {"input": [], "output": list(hooks)}
    return {"forward_proc": "forward_batch_only", "sequential": [], "forward_hook": hook, "wrapper": None, **more}


def stage(terms: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A stage on the digits."""
    return {
        "num_epochs": 1,
        "train_data_loader": {"dataset_id": "digits/train", **deepcopy(LOADER)},
        "val_data_loader": {"dataset_id": "digits/val", **deepcopy(LOADER)},
        "teacher": side(requires_grad=False),
        "student": side(requires_grad=True),
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}},
        **more,
    }


def config(
    train: dict[str, Any],
    *,
    root: str = "/nowhere",
    teacher: dict[str, Any] | None = None,
    student: dict[str, Any] | None = None,
    **more: Any,
) -> str:
    """A whole config; datasets have tags, the rest is plain."""
    models = {"student_model": student or {"key": "resnet20", "kwargs": {"num_classes": 10}, "dst_ckpt": "./s.pt"}}
    if teacher != {}:
        models["teacher_model"] = teacher or {"key": "resnet20", "kwargs": {"num_classes": 10}, "src_ckpt": "t.pt"}
    test = {"test_data_loader": {"dataset_id": "digits/val", **deepcopy(LOADER)}}
    text = yaml.safe_dump({"models": models, "train": train, "test": test, **more}, sort_keys=False)
    quoted = "'" + TORCH.replace("'", "''") + "'"
    return FOLDERS.format(root=root) + text.replace(quoted, TORCH)


def version_0() -> dict[str, Any]:
    """KD in the dialect of version 0: the same experiment as `config(stage({"kd": KD}))`."""
    return {
        "datasets": {
            "digits": {
                "name": "digits",
                "type": "ImageFolder",
                "root": "/nowhere/digits",
                "splits": {
                    split: {
                        "dataset_id": f"digits/{split}",
                        "params": {
                            "root": f"/nowhere/digits/{split}",
                            "transform_params": [
                                {"type": "ToTensor", "params": None},
                                {"type": "Normalize", "params": {"mean": [0.3] * 3, "std": [0.4] * 3}},
                            ],
                        },
                    }
                    for split in ("train", "val")
                },
            }
        },
        "models": {
            "teacher_model": {"name": "resnet20", "params": {"num_classes": 10}, "experiment": "t", "ckpt": "t.pt"},
            "student_model": {"name": "resnet20", "params": {"num_classes": 10}, "ckpt": "./s.pt"},
        },
        "train": {
            "num_epochs": 1,
            "train_data_loader": {
                "dataset_id": "digits/train",
                "random_sample": True,
                "batch_size": 8,
                "num_workers": 0,
            },
            "val_data_loader": {"dataset_id": "digits/val", "random_sample": False, "batch_size": 8, "num_workers": 0},
            "teacher": {"sequential": [], "wrapper": "DataParallel", "requires_grad": False},
            "student": {"adaptations": None, "sequential": [], "wrapper": None, "requires_grad": True},
            "optimizer": {"type": "SGD", "params": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}},
            "criterion": {
                "type": "GeneralizedCustomLoss",
                "org_term": {
                    "criterion": {"type": "KDLoss", "params": {"temperature": 3.0, "alpha": 0.3}},
                    "factor": 1.0,
                },
                "sub_terms": None,
            },
        },
        "test": {"test_data_loader": {"dataset_id": "digits/val", "random_sample": False, "batch_size": 1}},
    }


def mappings(content: Any, path: Place = ()) -> Iterator[Place]:
    """The places of all mappings of a config."""
    if isinstance(content, dict):
        yield path
    for name, child in _below(content):
        yield from mappings(child, (*path, name))


def values(content: Any, path: Place = ()) -> Iterator[Place]:
    """The places of all values of a config but the whole."""
    for name, child in _below(content):
        yield from values(child, (*path, name))
        yield (*path, name)


def _below(content: Any) -> list[tuple[Any, Any]]:
    if isinstance(content, dict):
        return list(content.items())
    return list(enumerate(content)) if isinstance(content, list) else []


def changed(content: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """A copy of a config with another value at one place."""
    new: Any = unaliased(content)
    above = new
    for name in place[:-1]:
        above = above[name]
    above[place[-1]] = value
    return new  # type: ignore[no-any-return]


def unaliased(content: Any) -> Any:
    """A copy in which no two places hold the same object."""
    if isinstance(content, Tagged):
        return Tagged(content.tag, {name: unaliased(child) for name, child in content.items()})
    if isinstance(content, dict):
        return {name: unaliased(child) for name, child in content.items()}
    return [unaliased(child) for child in content] if isinstance(content, list) else content


def told_of(content: dict[str, Any], monkeypatch: Any) -> tuple[str, set[str] | None]:
    """What the importer says of a config that was read already.

    Returns:
        The error and None; or the files and both lists, and the keys that are named.
    """
    monkeypatch.setattr("distill_app.migration.experiment.read_config", lambda path: content)
    try:
        found = convert(Path("config.yaml"), name="mine")
    except UsageError as error:
        return str(error), None
    ledger = found.ledger
    return str([found.files, ledger.left_out, ledger.differs]), {*ledger.left_out, *ledger.differs}


def imported(text: str, folder: Path, *, name: str = "mine") -> Imported:
    """What comes of a config."""
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return convert(file, name=name)


def written(found: Imported, folder: Path) -> Path:
    """The folder of configs with what was imported."""
    for name, text in found.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def experiment(found: Imported) -> dict[str, Any]:
    """The experiment as its file says it."""
    content: dict[str, Any] = yaml.safe_load(found.files[f"experiment/{found.name}.yaml"])
    return content


def terms(found: Imported, stage: str = "distill") -> dict[str, Any]:
    """The terms of an imported method of its own."""
    method = yaml.safe_load(found.files[f"method/{found.name}.yaml"])
    losses: dict[str, Any] = method["stages"][stage]["losses"]
    return losses


def options(found: Imported) -> dict[str, str]:
    """What the experiment chooses of each group."""
    entries = [entry for entry in experiment(found)["defaults"] if isinstance(entry, dict)]
    return {key.removeprefix("override /"): value for entry in entries for key, value in entry.items()}
