"""A config of torchdistill as an experiment: files of a config folder, and what is left to say."""

import re
from pathlib import Path
from typing import Any

from distill_app.errors import UsageError
from distill_app.migration.common import Common
from distill_app.migration.data import Data, Source, dataset, sources, validation
from distill_app.migration.dialect import read_config
from distill_app.migration.files import Files, Imported
from distill_app.migration.ledger import Ledger, Node
from distill_app.migration.loaders import evaluation, other_data
from distill_app.migration.networks import network
from distill_app.migration.stages import stage

OTHER_TASKS = (
    (r"(faster|mask|keypoint)_?rcnn|retinanet|ssd|fcos", "detects objects"),
    (r"deeplab|fcn_|lraspp", "segments images"),
)


def convert(path: Path, *, name: str | None = None) -> Imported:
    """Turns a config into an experiment.

    Args:
        path: The file.
        name: Of the experiment; None: that of the file.

    Raises:
        UsageError: No config of torchdistill for classification, one without a counterpart, or a value of the wrong
            kind.
    """
    content = read_config(path)
    ledger = Ledger()
    root = Node(content, ledger)
    _refuse_other_tasks(content, path)
    name = name or re.sub(r"\W+", "_", path.stem).strip("_")
    models = root.get("models")
    classes = _num_classes(models, root)
    student = network(models.get("student_model", "model"), num_classes=classes, role="student")
    teacher = models.get("teacher_model")
    common = Common(ledger, student, network(teacher, num_classes=classes, role="teacher") if teacher else None)
    stages = _stages(root.get("train"), common)
    data = _data(root, classes)
    if dependencies := root.get("dependencies"):
        dependencies.leave("packages of yours: name them in runtime.allow")
    _say_what_always_differs(common, models)
    made = Files(name, path.name, data, common, stages).write()
    ledger.leave_unread(content)
    return made


def _refuse_other_tasks(content: dict[str, Any], path: Path) -> None:
    """Object detection, segmentation and text are refused by name."""
    models = content.get("models")
    if not isinstance(models, dict) or not isinstance(content.get("train"), dict):
        raise UsageError(f"{path} has no models and train, so it is no config of torchdistill")
    for role, conf in models.items():
        key = str(conf.get("key") or conf.get("name")) if isinstance(conf, dict) else ""
        for expression, does in OTHER_TASKS:
            if re.search(expression, key):
                raise UsageError(f"{path}: models.{role} {key!r} {does}; only image classification is imported")
        if isinstance(conf, dict) and any(str(name).startswith(("tokenizer", "model_name_or_path")) for name in conf):
            raise UsageError(f"{path}: models.{role} {key!r} reads text; only image classification is imported")
    if not {"student_model", "model"} & set(models):
        raise UsageError(f"{path}: models has neither student_model nor model")


def _num_classes(models: Node, root: Node) -> int:
    for role in ("student_model", "model", "teacher_model"):
        classes = models.get(role).get("kwargs", "params").whole("num_classes", default=None, least=1)
        if classes is not None:
            return classes
    raise UsageError(f"{models.key}: no network says num_classes; write it into kwargs")


def _stages(node: Node, common: Common) -> dict[str, dict[str, Any]]:
    """The stages in order, each as `method.stages.<name>`, with what the recipe will say."""
    log = node.whole("log_freq", default=None)
    common.runtime |= {} if log is None else {"log_every": log}
    if not node.has("stage1"):
        return {"distill" if common.teacher else "train": _checked(stage(node, common), node)}
    found = {}
    number = 1
    while node.has(f"stage{number}"):
        part = node.get(f"stage{number}")
        found[f"stage{number}"] = _checked(stage(part, common), part)
        number += 1
    return found


def _checked(conf: dict[str, Any], node: Node) -> dict[str, Any]:
    if not conf["losses"]:
        reasons = [text for key, text in node.ledger.left_out.items() if key.startswith(f"{node.key}.criterion")]
        raise UsageError(
            f"{node.key}.criterion: no term of it has a counterpart here: {'; '.join(reasons) or 'it is empty'}"
        )
    return conf


def _data(root: Node, classes: int) -> Data:
    found = sources(root.get("datasets"))
    train = root.get("train")
    first = train.get("stage1") if train.has("stage1") else train
    node = first.get("val_data_loader")
    loads = first.get("train_data_loader")
    train_id, val_id = loads.text("dataset_id"), node.text("dataset_id", default=None)
    test = root.get("test")
    judge = test.get("test_data_loader")
    test_id = judge.text("dataset_id", default=None) or val_id
    test.use() if not test else None
    evaluation(judge)
    chosen = [_source(found, loads, train_id), _source(found, judge if judge else node, test_id)]
    val = _source(found, node, val_id) if val_id is not None else None
    same = val is None or val.like(chosen[1])
    data = dataset(*chosen, num_classes=classes)
    data.train = train_id
    validation(data, chosen[0], val_node=node.get("dataset_id"), same_as_test=same)
    _loaders(train, data, node)
    for source in found.values():
        if source not in chosen:
            if source is val and [each.value for each in source.transforms] != [
                each.value for each in chosen[1].transforms
            ]:
                node.get("dataset_id").differ("validation images go through the transforms of the test images here")
            for each in source.transforms:
                each.use()
    return data


def _source(found: dict[str, Source], loader: Node, name: str | None) -> Source:
    if name not in found:
        left = loader.ledger.left_out.items()
        reasons = [f" ({text})" for key, text in left if f"{key}.".startswith(f"datasets.{name}.")]
        raise UsageError(
            f"{loader.key}.dataset_id: the data set {name!r} is none of torchvision's that `datasets` describes"
            f"{''.join(reasons[:1])}"
        )
    return found[name]


def _loaders(train: Node, data: Data, first: Node) -> None:
    """Validation: how many images at once; of later stages it is that of the first."""
    if size := evaluation(first):
        (data.conf if data.content is None else data.content)["eval_batch_size"] = size
    for name, part in train.items():
        if name.startswith("stage"):
            loader = part.get("val_data_loader")
            evaluation(loader)
            if loader.get("dataset_id").value not in (None, first.get("dataset_id").value):
                loader.get("dataset_id").leave("the epochs of every stage are judged by the images of the first here")
            other_data(part, data.train)


def _say_what_always_differs(common: Common, models: Node) -> None:
    if common.teacher is not None and not models.get("student_model").has("name"):
        common.ledger.differ(
            "train.teacher",
            "it is in eval mode here; since version 1.0 nothing puts it there, so that its batch norms "
            "take the statistics of each batch, and their running ones go on moving",
        )
    for role, found in (("teacher", common.teacher), ("student", common.student)):
        if found is not None and found.overwritten:
            common.ledger.differ(
                f"train.{role}.forward_hook.input",
                f"{', '.join(dict.fromkeys(found.overwritten))}: what goes into the ReLU is read before it here; there "
                f"a hook finds it overwritten by what comes out, since torchvision's work in place",
            )
    common.ledger.differ(
        "train.val_data_loader",
        "stage.select=best hands on the epoch that is best on validation images, as there; where they are the test "
        "images, that epoch is chosen by them",
    )
