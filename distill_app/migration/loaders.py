"""Data loaders: batches, workers and order, in training, and what is left of them in validation and in the test."""

from distill_app.migration.common import Common
from distill_app.migration.ledger import Node

PER_PROCESS = (
    "of each process there where torchrun starts several, of all of them together here (stage.batch_size); with "
    "-adjust_lr the rate was multiplied by their number: stage.reference_batch_size scales it here"
)
IN_ORDER = ("torch.utils.data.SequentialSampler", "torch.utils.data.RandomSampler")


def training(node: Node, common: Common) -> None:
    """Batches, workers, and what wraps samples; a stage that says nothing goes on with those of the stage before."""
    if not node:
        node.use()
        return
    arguments = _arguments(node)
    if arguments.has("batch_size"):
        common.batch_size = arguments.whole("batch_size", least=1)
        arguments.get("batch_size").differ(PER_PROCESS)
    common.drop_last = arguments.flag("drop_last", default=False)
    workers = arguments.whole("num_workers", default=None)
    common.runtime |= {} if workers is None else {"num_workers": workers}
    _sampling(node)
    _wrapper(node.get("dataset_wrapper"), common)
    cached = node.text("cache_output", default=None)
    if cached:
        node.get("cache_output").differ(
            "there the teacher's outputs for the first view of an image are kept, and read again for every other view; "
            "here for fixed views: cache.views=1 shows each image in one, more of them in more"
        )
        common.cache |= {"enabled": True, "views": 1, "folder": cached}


def evaluation(node: Node) -> int | None:
    """How many images at once a loader of validation or test images takes; all of them are looked at, in any order."""
    if not node:
        node.use()
        return None
    arguments = _arguments(node)
    size = arguments.whole("batch_size", default=None, least=1)
    arguments.whole("num_workers", default=None)
    if arguments.flag("drop_last", default=False):
        arguments.get("drop_last").differ("all images are judged here, those of the last batch too")
    node.flag("random_sample", default=None)
    sampler = node.get("sampler")
    if _class(sampler) not in (None, *IN_ORDER):
        sampler.leave("all images of a data set are judged")
    _sampler_arguments(sampler)
    for name in ("batch_sampler", "collate_fn", "dataset_wrapper", "cache_output"):
        if node.get(name):
            node.get(name).leave("images are judged one by one, as they are, and all of them")
        node.get(name).use()
    return size


def _arguments(node: Node) -> Node:
    """The arguments of a loader of torch, of which those that are known here or filled in count as used."""
    node.text("dataset_id", default=None)
    node.flag("requires_supp", default=None)
    arguments = node.get("kwargs") if node.has("kwargs") else node
    arguments.flag("pin_memory", default=None)  # wherever there is a GPU
    if node.has("kwargs"):
        for name, child in arguments.items():
            if name not in ("batch_size", "num_workers", "drop_last", "pin_memory"):
                child.leave("an argument of a data loader that has no counterpart here")
        arguments.use() if not arguments else None
    return arguments


def _class(sampler: Node) -> str | None:
    """The class that `sampler` names, None where there is none."""
    entry = sampler.get("class_or_func")
    if not entry:
        entry.use()
        return None
    package = entry.text("package", default=None)
    return ".".join(filter(None, (package, entry.text("key", default=""))))


def _sampler_arguments(sampler: Node) -> None:
    arguments = sampler.get("kwargs")
    if arguments and not sampler.ledger.has_read(sampler.path):
        arguments.leave("name the sampler and its arguments in dataset.sampler")
    arguments.use()
    sampler.use() if not sampler else None


def _sampling(node: Node) -> None:
    """In random order is how a stage reads its samples; other samplers are objects."""
    sampler = node.get("sampler")
    if not node.flag("random_sample", default=True):
        node.get("random_sample").leave("training reads its samples in random order; name a class in dataset.sampler")
    if _class(sampler) not in (None, "torch.utils.data.RandomSampler"):
        sampler.leave("training reads its samples in random order; name a class in dataset.sampler")
    _sampler_arguments(sampler)
    for name in ("batch_sampler", "collate_fn"):
        if node.get(name):
            node.get(name).leave(f"name the class or function in dataset.{name.removesuffix('_fn')}, by its _target_")
        node.get(name).use()


def _wrapper(node: Node, common: Common) -> None:
    if not node:
        node.use()
        return
    key, arguments = node.text("key", "name"), node.get("kwargs", "params")
    common.wrappers, common.positives = {}, None
    if key in ("CRDDatasetWrapper", "ContrastiveDataset"):
        common.positives = arguments.text("mode", default="exact")
        arguments.whole("num_negative_samples", default=None)  # which the loss says too
        if arguments.number("ratio", default=1.0) != 1.0:
            arguments.get("ratio").leave("negatives are drawn from all samples of other classes here")
    elif key in ("SSKDDatasetWrapper", "SSKDDataset"):
        common.wrappers = {"views": {"_target_": "distill_app.data.RotatedViews", "each": True}}
    else:
        node.leave(
            f"{key!r} is no wrapper that is known here; one of your own derives from distill_app.data.SampleWrapper"
        )
        return
    arguments.use() if not arguments else None
    arguments.rest("an argument that has no counterpart here")


def other_data(part: Node, train: str) -> None:
    """Tells of a later stage that trains on other data than the first."""
    other = part.get("train_data_loader").get("dataset_id")
    if other.value not in (None, train):
        other.leave("every stage trains on the data of the first; method.stages.<name>.data says otherwise here")
