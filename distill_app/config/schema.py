"""The schema: what a composed config looks like, as dataclasses registered with Hydra's ConfigStore.

Only structure is typed. What goes to a constructor (`net`, `loss`, `module`, `optimizer`, ...) stays `Any`; `check`
binds it against the signature of its `_target_` instead, so that no constructor is mirrored here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import II, MISSING, OmegaConf


@dataclass
class InputConf:
    """The images that one network gets, made on the device from those of the batch; null: as the data have them."""

    size: int | None = None  # of one side in pixels
    mean: Any = None  # a list, one number per channel, of images scaled to [0, 1]; together with std
    std: Any = None
    channels: int | None = None  # 1 or 3; the network's constructor gets them as in_chans or in_channels
    # Whether what is null is taken from timm's config of the network; null: where its published weights are loaded and
    # no stage trains it. The run's config then holds what was found.
    find: bool | None = None


@dataclass
class ModelConf:
    """A network: how to build it, the canonical names of its activations, and where its weights come from."""

    name: str | None = None  # what summaries and plots call it
    net: Any = MISSING
    taps: dict[str, str] = field(default_factory=dict)
    # Whether taps that are read and not written above are looked for in the network; null: where none are written. The
    # run's config then holds what was found.
    find_taps: bool | None = None
    input: InputConf = field(default_factory=InputConf)
    # Where its weights come from: the checkpoint, a file; else torchvision's weights, an enum name; else what its
    # constructor loads; else chance.
    checkpoint: str | None = None
    checkpoint_optional: bool = False  # a file that is not there is passed over, with a warning
    checkpoint_key: str | None = None  # which of several state dicts in the file: model_ema, state_dict.student
    drop_head: bool = False  # leave out the classifier of a checkpoint that has another number of classes
    weights: str | None = None
    # What it is trained like from scratch: tiny, cifar, imagenet, transformer; null: nobody has said. One that
    # begins with published weights is for finetune. The check compares it with what a recipe `fits`.
    trains_as: str | None = None
    allow_random: bool = False  # run it frozen although nothing was loaded into it and no stage trains it
    starts_like: str | None = None  # draws the random numbers, or loads the file, of this network instead of its own
    each: str | None = None  # of a method's networks: one for each name in method.params.<each>, as config.each has it


@dataclass
class NormalizeConf:
    """Per-channel statistics of the training images, scaled to [0, 1]."""

    mean: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    std: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])


@dataclass
class DatasetConf:
    """Images, the transforms of training and evaluation, and the held-out validation split."""

    name: str = MISSING
    num_classes: int = MISSING
    image_size: int | None = None  # of one side in pixels; null where inputs are no images
    channels: int = 3  # of images as networks get them; 1 makes them grey
    classes: list[str] | None = None  # in the order of their labels; of own data, null: found, and kept with the run
    root: str | None = None
    get: str | None = None  # what to type when root is not there
    file: str | None = None  # of dataset=csv
    path: str | None = None  # of dataset=huggingface: a folder, a parquet file, or the id of a data set on the hub
    subset: str | None = None  # of a data set on the hub that has several
    # Own data: what a table's columns for image, label and split are called; part (train, validation, test) -> what the
    # data call it, where that is no usual name; and without parts, the share of each class that is tested, drawn by a
    # seed that is not the run's.
    columns: dict[str, str | None] = field(default_factory=dict)
    splits: dict[str, str | None] = field(default_factory=dict)
    test_fraction: float | None = None
    split_seed: int = 0
    train: Any = MISSING
    test: Any = MISSING
    # Share of the training data that judges epochs, where the data have no images for that; 0 takes the test set, null
    # is a tenth.
    validation_fraction: float | None = 0.0
    train_transform: list[Any] = field(default_factory=list)
    eval_transform: list[Any] = field(default_factory=list)
    normalize: NormalizeConf = field(default_factory=NormalizeConf)
    wrappers: dict[str, Any] = field(default_factory=dict)
    student_labels_per_class: int | None = None
    # How samples become batches; null: all of them in an order of the program's, in batches of stage.batch_size,
    # collated by the task. Constructors get what they have parameters for: dataset, labels, num_samples, seed,
    # generator and epoch, a batch sampler also sampler, batch_size and drop_last.
    sampler: Any = None  # which training samples in which order, such as torch.utils.data.WeightedRandomSampler
    batch_sampler: Any = None  # which of them together
    collate: Any = None  # a function of a list of samples, or a class of such; for evaluation too
    eval_batch_size: int = 256
    # Images in memory as one tensor on the device, batches cropped and flipped there: true, false, or auto: where it is
    # possible and takes up to 2 GB. It changes no batch; runtime.num_workers is for what is loaded sample by sample.
    resident: Any = "auto"
    task: Any = MISSING


@dataclass
class LossTermConf:
    """A weighted criterion and where its arguments come from (argument name -> address)."""

    loss: Any = MISSING
    inputs: dict[str, Any] = field(default_factory=dict)
    weight: Any = None  # a number, or a schedule with a _target_; null: 1
    each: str | None = None  # once for each name in method.params.<each>, as <term>_<name>


@dataclass
class AdapterConf:
    """An auxiliary module, fed from `source`; `target` is what its output shall have the shape of.

    What is built is its `module`, which the stage trains. With `part` it is none of its own.
    """

    module: Any = None
    # Modules of a network that the stage does not train, run as they are: teacher.roi_heads.box_head, by path or tap; a
    # list: one after the other; with :all behind it, once for each item of lists. A list as source is several
    # arguments, a mapping arguments by name. Gradients flow through, and their weights stay as they are.
    part: Any = None
    source: Any = MISSING
    target: Any = None
    # A module of a network that the stage runs, by the tap that is its input or output, or by path: student.pooled is
    # the classifier that pooled features go into. The constructor gets it as `borrowed`; it stays the network's own.
    borrows: str | None = None
    each: str | None = None  # once for each name in method.params.<each>, as <adapter>_<name>
    # A key of the batch, such as target, that its output stands for: trained networks and terms then get this one. It
    # runs before them, on the batch and on networks that are not trained.
    fills: str | None = None


@dataclass
class SchedulerConf:
    """A learning-rate scheduler and whether it counts epochs or optimiser steps."""

    interval: str = "epoch"
    schedule: Any = None


@dataclass
class EmaConf:
    """An average of a trained network's weights over the steps: a <- decay a + (1 - decay) w.

    Its stage may learn from it: addresses `student_ema.<tap>`, or `roles: {teacher: student_ema}`. It is then a mean
    teacher, which runs in train mode with batch norm statistics of its own, begins with the weights before the first
    step, averages all of them until decay is reached, and is what epochs are selected by.
    """

    decay: float | None = None  # in [0, 1), such as 0.999; null: no average


@dataclass
class RecipeConf:
    """How to optimise; every stage of a method inherits the chosen recipe."""

    fits: list[str] = field(default_factory=list)  # which networks it trains well, by their `trains_as`; []: any
    epochs: int = MISSING
    lr: float = MISSING
    batch_size: int = MISSING
    teacher_epochs: int = II("stage.epochs")  # of the prelude's stage, where the teacher is trained first
    teacher_lr: float = II("stage.lr")
    reference_batch_size: int | None = None  # linear scaling rule: lr x (global batch / this); null: lr as it is
    accumulation_steps: int = 1
    clip_grad_norm: float | None = None
    warmup_epochs: int = 0
    warmup_start_factor: float = 0.01
    decay_norm_and_bias: bool = True
    lr_scales: dict[str, float] = field(default_factory=dict)  # address of a module -> factor on lr
    drop_last: bool = False
    select: str = "last"  # which epoch's weights a stage hands on: last or best
    judge_every: int | None = None  # epochs; null: each. The last one is judged in any case
    patience: int | None = None  # epochs in a row without a better one after which a stage ends; null: all its epochs
    ema: EmaConf = field(default_factory=EmaConf)  # judged, tested and exported beside the network, as <network>_ema
    optimizer: Any = MISSING
    scheduler: SchedulerConf = field(default_factory=SchedulerConf)


@dataclass
class StageConf:
    """A stretch of training. Scalars default to the recipe's; null objects inherit from the stage before."""

    # A stage from which all is taken that is not named here: losses, adapters, roles, epochs, data ...
    like: str | None = None
    # Once for each name in method.params.<each>, as <stage>_<name>; {each} in it is the name, {before} the one before.
    each: str | None = None
    epochs: int = II("stage.epochs")
    lr: float = II("stage.lr")
    batch_size: int = II("stage.batch_size")
    reference_batch_size: int | None = II("stage.reference_batch_size")
    accumulation_steps: int = II("stage.accumulation_steps")
    clip_grad_norm: float | None = II("stage.clip_grad_norm")
    warmup_epochs: int = II("stage.warmup_epochs")
    warmup_start_factor: float = II("stage.warmup_start_factor")
    decay_norm_and_bias: bool = II("stage.decay_norm_and_bias")
    lr_scales: dict[str, float] = II("stage.lr_scales")
    drop_last: bool = II("stage.drop_last")
    select: str = II("stage.select")
    judge_every: int | None = II("stage.judge_every")
    patience: int | None = II("stage.patience")
    ema: EmaConf = II("stage.ema")
    labels_per_class: int | None = II("dataset.student_labels_per_class")
    unlabelled: bool = False  # also on images of which the data set has no target, where it has such
    optimizer: Any = None
    scheduler: SchedulerConf | None = None
    data: DatasetConf | None = None
    label: str | None = None  # what the result table calls the network that this stage trains
    # Which network plays which part: {teacher: assistant} makes the addresses teacher.* read the assistant.
    roles: dict[str, str] = field(default_factory=dict)
    # Role or network -> network whose weights it starts from, where names and shapes agree.
    init_from: dict[str, str] = field(default_factory=dict)
    train: list[str] | None = None  # networks by role or name, adapters as adapters.<name>; null: [student]
    # Kept out of training, in eval mode: modules by path or tap (student.layer1, student.stage1), classes
    # (student:torch.nn.BatchNorm2d), and all that is defined behind a module (student.stage1:after).
    freeze: list[str] | None = None
    # Role or network -> what runs in the place of it, in order: paths of its modules, or modules without parameters
    # ({_target_: torch.nn.Flatten}). []: nothing, all comes from the cache. Networks that are not named here run as far
    # as their taps need by themselves.
    redesign: dict[str, list[Any]] = field(default_factory=dict)
    # Sample wrappers beside those of the data set, in training only: name -> what to build, null to leave one out.
    wrappers: dict[str, Any] = field(default_factory=dict)
    skip_if_loaded: bool = False  # skip the stage when all it trains came from a checkpoint or from weights
    adapters: dict[str, AdapterConf | None] = field(default_factory=dict)
    losses: dict[str, LossTermConf | None] = field(default_factory=dict)


@dataclass
class AboutConf:
    """What is told of a method beside its wiring: docs/methods and `distill show` show it.

    The longer texts (does, formula, know, matches) may stand in a Markdown file beside the method's own.
    """

    title: str | None = None
    kind: str | None = None  # what of the networks it is about: logits, features, relations, structure ...
    paper: str | None = None  # authors and year, then the address
    learns: str | None = None  # what the student learns from, in a few words
    needs: str | None = None  # of networks and data, besides labels
    does: str | None = None
    formula: str | None = None
    matches: str | None = None  # which reference implementations the numbers of its losses equal
    know: str | None = None  # before using it


@dataclass
class MethodConf:
    """A distillation method: its stages and the order in which they run."""

    name: str = MISSING
    about: AboutConf | None = None  # of this very file: a method that inherits from another says its own
    schedule: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, StageConf] = field(default_factory=dict)
    extra_models: dict[str, ModelConf] = field(default_factory=dict)


@dataclass
class RuntimeConf:
    """What concerns the machine rather than the experiment."""

    device: str = "auto"
    num_workers: int = 0
    threads: int | None = None
    deterministic: bool = False
    cudnn_benchmark: bool | None = None  # tries convolution kernels for each new size; null: as torch has it, off
    channels_last: bool = True  # memory layout of images and maps; the faster one on GPUs and most CPUs
    precision: str = "fp32"  # of forwards: bf16, or fp16 with a scaler; parameters and losses are always fp32
    fold_batch_norm: bool = True  # of networks that are not trained, into the layers before them; exact to 1e-6
    compile: bool = False  # every network of a stage by torch.compile; minutes for the first step, then faster on GPUs
    compile_backend: str = "inductor"
    tf32: bool | None = None  # of matrix products and convolutions in fp32 on a GPU; null: as torch has it
    log_every: int = 50
    # Of several processes: whether a frozen network lies whole on each of them (ddp), or a part of it on each (fsdp)
    # for one that a GPU cannot hold beside the rest; whether batch norm takes its statistics over all of them; how
    # often their weights are compared, in batches; seconds in which all have to come to the same place.
    parallel: str = "ddp"
    sync_batch_norm: bool | None = None  # null: each on its own part of a batch
    compare_ranks_every: int | None = 1000
    rank_timeout_s: int = 600
    gradient_norms_every: int | None = None  # steps; logs what each loss term alone would pull with, at its weight
    # Packages beside distill_app, torch and torchvision from which a _target_ may be imported.
    allow: list[str] = field(default_factory=lambda: ["timm"])
    corrupt_images: str = "raise"  # or skip
    max_skipped: int = 10
    max_epochs: int | None = None  # cuts every stage short, for debugging
    max_steps_per_epoch: int | None = None
    max_eval_batches: int | None = None  # judges and tests on that many batches, of images spread over all


@dataclass
class CheckpointConf:
    """When a run is saved, beside the end of every epoch; wherever it broke off, it goes on with the same numbers."""

    every_steps: int | None = None  # batches, counted in the epoch
    every_minutes: float | None = 15.0
    keep: int = 1  # checkpoints of epochs beside the last and the best one of each stage, and as many within epochs


@dataclass
class CacheConf:
    """What frozen networks say of the training images, kept from epoch to epoch and from run to run."""

    enabled: bool = False
    folder: str = "outputs/cache"
    views: int | None = None  # V: epoch e shows view e modulo V of every image; null: 1, if there is no augmentation
    seed: int = 0  # of the augmentation, in the place of the run's: runs of several seeds share the views
    taps: list[str] | None = None  # teacher.logits, ...; null: every tap that is read of a frozen network
    top_k: int | None = None  # of logits only the k largest, and one number for the rest
    max_gb: float = 50.0  # of what one stage fills
    reuse: str | None = None  # the folder of one cache; refused if it was filled from something else


@dataclass
class BenchmarkConf:
    """The published benchmark that a run belongs to: its figures are shown beside the run's own."""

    name: str | None = None


@dataclass
class AppConf:
    """The whole experiment."""

    dataset: DatasetConf = field(default_factory=DatasetConf)
    teacher: ModelConf = field(default_factory=ModelConf)
    student: ModelConf = field(default_factory=ModelConf)
    extra_models: dict[str, ModelConf] = field(default_factory=dict)  # addressed by name, as those of a method
    prelude: MethodConf = field(default_factory=MethodConf)
    method: MethodConf = field(default_factory=MethodConf)
    stage: RecipeConf = field(default_factory=RecipeConf)
    launcher: Any = MISSING
    tracker: dict[str, Any] = field(default_factory=dict)  # name -> where the records of a run are shown besides
    runtime: RuntimeConf = field(default_factory=RuntimeConf)
    checkpoint: CheckpointConf = field(default_factory=CheckpointConf)
    cache: CacheConf = field(default_factory=CacheConf)
    benchmark: BenchmarkConf = field(default_factory=BenchmarkConf)
    # What settings of a benchmark refer to that goes by the pair of networks: dkd.beta, the student's lr ...
    pair: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    dry_run: bool = False


def to_app(config: Mapping[str, Any]) -> AppConf:
    """The typed config from plain containers.

    Raises:
        ConfigError: A part with `each` has no list of names.
    """
    merged = OmegaConf.merge(OmegaConf.structured(AppConf), OmegaConf.create(dict(config)))
    app = OmegaConf.to_object(merged)
    assert isinstance(app, AppConf)  # for the type checker: the schema is the root
    from distill_app.config.each import written_out  # which brings Hydra along, and completion does without

    return written_out(app)
