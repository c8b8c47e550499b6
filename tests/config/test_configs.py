"""Every shipped YAML composes and passes the check; any teacher goes with any student."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from detection_fixtures import DETECTORS
from method_fixtures import DETECTION, HEADS, SEGMENTATION, TOKENS, tokens
from omegaconf import OmegaConf
from pixel_fixtures import SEGMENTERS

from distill_app.check.quick import check, read
from distill_app.config.build import Builder
from distill_app.config.groups import conf_dir, groups, options_of
from distill_app.config.plan import adapter_confs
from distill_app.config.schema import AppConf
from distill_app.config.tree import compose
from distill_app.errors import ConfigError
from distill_app.networks.network import Network, build_network
from distill_app.networks.taps import map_tensors
from distill_app.training.assemble import Context, build_slots, build_terms, example_namespace
from distill_app.training.experiment import Experiment, Parts
from distill_app.training.precision import Precision
from distill_app.training.step import Step

CONF = Path(conf_dir())
FROZEN = ("prelude=none", "teacher.allow_random=true")  # the teacher as it is built
FILES = sorted(CONF.glob("**/*.yaml"))
# The pairs that method=fitnet must take, one family after the other.
PAIRED = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "vgg11_bn",
    "vgg13_bn",
    "vgg16_bn",
    "densenet121",
    "efficientnet_b0",
    "shufflenet_v2_x1_0",
    "mnasnet1_0",
    "regnet_y_400mf",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
    "resnet20",
]
# Convolutions on another number of channels, tokens, and maps of another size.
CONTRASTS = ["mobilenet_v2", "vit_b_16", "resnet20"]
TAPS = [f"stage{i}{suffix}" for i in range(1, 5) for suffix in ("", "_pre")]
CANONICAL = {"stem", *TAPS, "pooled", "features", "logits", "output", *(f"p{level}" for level in range(2, 6))}
# Of detectors: what goes into the pooling of regions and comes out of heads, and what they are matched with.
OF_REGIONS = {"fpn", "roi_pool", "roi_pool.1", "roi_pool.2", "roi_heads", "box_features", "transformed.1"}
OF_HEADS = {"cls_hidden", "cls_last", "box_hidden", "box_last", "box_logits", "box_deltas", "anchors"}
BLOCKS = {"block1", "block2", "normed"}  # of ViTs
OBJECTS = {"coco2017", "coco2017_keypoints", "coco_format", "fashion_det", "voc2007", "voc2012"}
# Presets on ImageNet and CIFAR-100 are checked with images, in whole_runs/test_presets.py.
BUNDLED = [name for name in options_of("experiment") if not name.startswith(("imagenet/", "cifar100/", "coco/"))]
MAPS = {"coco_voc", "fashion_seg", "segmentation_folder", "voc2012_seg"}
DATA_ELSEWHERE = {"cifar10", "cifar100", "fashion_mnist", "imagefolder", "imagenet", *(OBJECTS - {"fashion_det"})}
DATA_ELSEWHERE |= MAPS - {"fashion_seg"}
UNNAMED = {"csv": "file", "huggingface": "path"}
HUBCONF = (
    "from torchvision.models import resnet18\n\ndef small(num_classes):\n    return resnet18(num_classes=num_classes)\n"
)


def model_overrides(name: str, role: str, folder: Path) -> list[str]:
    if name == "own":
        return [f"model@{role}={name}", f"{role}.net._target_=torchvision.models.resnet18"]
    if name != "hub_local":
        return [f"model@{role}={name}"]
    (folder / "hubconf.py").write_text(HUBCONF)
    return [f"model@{role}={name}", f"{role}.net.repo_or_dir={folder}", f"{role}.net.model=small"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_a_file_begins_with_its_paper_or_its_command(path):
    first, second, *_ = path.read_text().splitlines()
    assert (second if first.startswith("# @package") else first).startswith("# ")


def test_the_promised_groups_and_options_are_there():
    expected = {
        "dataset",
        "debug",
        "experiment",
        "launcher",
        "loss",
        "method",
        "model",
        "optimizer",
        "prelude",
        "scheduler",
        "stage",
    }
    assert expected <= set(groups())
    assert set(PAIRED) <= set(options_of("model")) and DATA_ELSEWHERE | {"digits", "fake"} <= set(options_of("dataset"))
    assert {"ce", "kd", "fitnet", "at", "ft"} <= set(options_of("method"))
    assert {"adam", "adamw", "sgd"} <= set(options_of("optimizer"))
    assert {"multistep", "cosine", "constant"} <= set(options_of("scheduler"))
    assert "digits/kd" in options_of("experiment")


def test_the_default_passes():
    assert list(check(compose())) == []


@pytest.mark.slow
@pytest.mark.options("method", quick=("ce", "crd", "fitnet", "ghnd", "kd", "sskd"))
def test_a_method_passes_on_bundled_data(option, tiny, errors_of):
    # In head distillation the student is the teacher with a bottleneck.
    pair = ["model@teacher=cres_w32", "model@student=cres_w32_bottleneck"] if option in ("hnd", "ghnd") else []
    data = ["dataset=fake_multilabel", "dataset.image_size=8"] if option == "multilabel_kd" else []
    if option in DETECTION:
        kind = "tiny_retinanet" if option in HEADS else "tiny_fasterrcnn"
        data = ["dataset=fashion_det", f"model@teacher={kind}", f"model@student={kind}_8"]
        data += ["dataset.train.labelled=100"] if option == "pseudo_boxes" else []
    if option in SEGMENTATION:
        data = ["dataset=fashion_seg", "model@teacher=tiny_fpn_segmenter", "model@student=tiny_fpn_segmenter_8"]
    if option in TOKENS:
        data = ["dataset=fake", "dataset.image_size=16", *tokens("teacher", width=24), *tokens("student", width=16)]
    assert errors_of(*tiny, "prelude=none", f"method={option}", *pair, *data) == []


@pytest.mark.options("dataset")
@pytest.mark.slow
def test_a_data_set_passes_or_says_how_to_get_it(option, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_DATA", str(tmp_path))
    nets = ["model@teacher=resnet8", "model@student=resnet8"]
    if option in OBJECTS:
        nets = ["method=own", "model@teacher=tiny_fasterrcnn", "model@student=tiny_fasterrcnn"]
    if option in MAPS:
        nets = ["method=seg_ce", "model@teacher=tiny_fpn_segmenter", "model@student=tiny_fpn_segmenter"]
    cfg = compose([f"dataset={option}", *FROZEN, *nets])
    expected = []
    if option in UNNAMED:
        expected = [f"dataset.{UNNAMED[option]}: is missing; set it: 'dataset.{UNNAMED[option]}=...'"]
    if option in DATA_ELSEWHERE:
        root = Path(cfg.dataset.root)
        assert tmp_path in root.parents
        expected = [f"dataset.root: {root} is not there ({root}); to get the data: {cfg.dataset['get']}"]
        assert str(root) in cfg.dataset["get"]
    assert list(check(cfg)) == expected


@pytest.mark.slow
def test_optimizers_schedulers_preludes_launchers_and_debug_options_pass(tiny, errors_of):
    keys = {
        "optimizer": "optimizer@stage.optimizer",
        "scheduler": "scheduler@stage.scheduler",
        "prelude": "prelude",
        "launcher": "launcher",
        "debug": "debug",
    }
    options = {group: options_of(group) for group in keys}
    for name in ("own", "segmentation"):  # for networks that compute losses themselves, or tell classes of pixels
        options["prelude"].remove(name)
    for number in range(max(map(len, options.values()))):
        chosen = [f"{keys[group]}={names[number % len(names)]}" for group, names in options.items()]
        chosen += ["launcher.tasks_per_node=2"] if "launcher=ddp" in chosen else []
        assert errors_of(*tiny, *chosen) == [], chosen


@pytest.mark.options("stage")
@pytest.mark.slow
def test_a_recipe_passes(option, tiny, errors_of):
    assert errors_of(*tiny, f"stage={option}", "prelude=teacher_recipe") == []


@pytest.mark.slow
def test_every_loss_mounts_and_those_without_adapters_pass(tiny, errors_of):
    names = options_of("loss")
    texts = {name: (CONF / "loss" / f"{name}.yaml").read_text() for name in names}
    # One for each name of a list: outside of a part that says which list it is told so.
    repeated = [name for name, text in texts.items() if "{each}" in text]
    errors = errors_of(*tiny, *(f"+loss@method.stages.distill.losses.x_{name}={name}" for name in repeated))
    assert repeated and all("{each} stands for nothing here" in error for error in errors)
    assert all(any(f"x_{name}.inputs" in error for error in errors) for name in repeated)

    # Taps of ViTs, levels and heads of detectors, taps of segmenters.
    foreign = re.compile(r"normed|\.p2|\.box_logits|\.features")
    names = [name for name in names if name not in repeated and not foreign.search(texts[name])]
    needy = {name: re.findall(r"adapters\.(\w+)", texts[name].split("inputs:")[1]) for name in names}
    assert sum(not adapters for adapters in needy.values()) > 8

    mounted = [f"+loss@method.stages.distill.losses.x_{name}={name}" for name in names if needy[name]]
    errors = errors_of(*tiny, *mounted)
    expected = [(name, adapter) for name, adapters in needy.items() for adapter in adapters]
    assert len(errors) == len(expected)
    for (name, adapter), error in zip(expected, errors, strict=True):
        assert error.startswith(f"method.stages.distill.losses.x_{name}.inputs: unknown adapter {adapter!r}")

    # Some compare what has one size; for these student and teacher are the same architecture.
    same = ["model@teacher=plain_8_16", "method.stages.distill.wrappers={}"]
    mounted = [f"+loss@method.stages.distill.losses.x_{name}={name}" for name in names if not needy[name]]
    # These read rotated views, targets that are vectors of labels, a tap of a network that the method brings along,
    # losses of the network's own, or maps of classes.
    words = ("sskd", "binary", "simkd", "own", "pixel", "cwd_logits")
    other = [each for each in mounted if any(word in each for word in words)]
    assert errors_of(*tiny, *same, *(each for each in mounted if each not in other)) == []


@pytest.mark.slow
@pytest.mark.parametrize("option", BUNDLED)
def test_a_preset_on_bundled_data_passes(option, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_DATA", str(tmp_path))
    told = ("dataset.root: ", "cannot download")  # what there is no network for
    errors = check(compose([f"experiment={option}"]))
    assert [error for error in errors if not any(words in error for words in told)] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin_t", "hub_local"])
def test_a_model_passes_as_student_and_as_teacher(name, tmp_path):
    for role in ("student", "teacher"):
        assert list(check(compose([*FROZEN, *model_overrides(name, role, tmp_path)]))) == []


@pytest.mark.slow
@pytest.mark.options("model")
def test_every_model_passes_as_student_and_as_teacher(option, tmp_path):
    if option in DETECTORS:
        kinds = "[bbox,segm]" if "mask" in option else "[bbox]"
        data = ("dataset=fashion_det", f"dataset.task.kinds={kinds}", "dataset.train.count=8", "dataset.test.count=2")
        if "keypoint" in option:  # which these images have not
            return
        # Large backbones at 800 px take minutes each: of them the config is read, and tests/models/test_detectors.py
        # builds and reads them.
        large = "_resnet" in option or "vgg16" in option
        cfg = compose([*FROZEN, *data, "method=own", f"model@student={option}"])
        assert list(read(cfg)[0] if large else check(cfg)) == []
        return
    if option in SEGMENTERS:
        # At 480 px, as they are trained, ResNets take minutes each: tests/models/test_segmenters.py builds them.
        data = ("dataset=fashion_seg", "dataset.train.count=8", "dataset.test.count=2")
        cfg = compose([*FROZEN, *data, "method=seg_ce", f"model@student={option}"])
        assert list(read(cfg)[0] if "resnet" in option else check(cfg)) == []
        return
    # Any method's taps: those of AT and of the hint of FitNet, beside the logits.
    for role, method in (("student", "fitnet"), ("teacher", "at")):
        if option == "teacher_bottleneck" and role == "teacher":
            continue  # it is made from the teacher, and plays the student
        overrides = [f"method={method}", *model_overrides(option, role, tmp_path)]
        assert list(check(compose([*FROZEN, *overrides]))) == [], role


@cache
def fitnet(name: str) -> tuple[AppConf, list, Network]:
    """FitNet between two networks of one architecture: the config, its plans, the network on the meta device."""
    errors, app, plans = read(
        compose(["method=fitnet", "prelude=none", f"model@teacher={name}", f"model@student={name}"])
    )
    assert not errors and app is not None
    try:
        with torch.device("meta"):  # shapes without storage
            return app, plans, build_network(app, "student", builder=Builder(), device="meta")
    except ConfigError:  # some constructors look at values
        return app, plans, build_network(app, "student", builder=Builder(), device="meta")


def _on_meta(batch: dict) -> dict:
    return {name: value.to("meta") if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def _random_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.randn(tensor.shape) if tensor.is_floating_point() else torch.zeros(tensor.shape, dtype=tensor.dtype)


@cache
def fitnet_taps(name: str, stage: int) -> dict:
    """What the stage reads of the network, as noise of the shapes that it gives."""
    app, plans, network = fitnet(name)
    task = Experiment(app, plans).task(plans[stage])
    size = app.dataset.image_size
    noise = {"input": torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8), "target": torch.arange(2)}
    batch = task.prepare({**noise, "index": torch.arange(2)}, device=torch.device("cpu"))
    networks = {"student": network, "teacher": network}
    taps = example_namespace(plans[stage], networks, _on_meta(batch), task.call, builder=Builder())
    return {**map_tensors(taps, _random_like), "batch": batch}


def shapes(name: str, role: str) -> tuple:
    """The shapes of all that FitNet reads of a network."""
    stages = [fitnet_taps(name, number)[role] for number in range(2)]
    return tuple((tap, tuple(value.shape)) for taps in stages for tap, value in taps.items())


FITTED: set[tuple] = set()


def fit(student: str, teacher: str) -> None:
    """Builds adapters and terms of both stages on noise; the total must have a gradient for all the student gives."""
    pair = shapes(student, "student"), shapes(teacher, "teacher")
    if pair in FITTED:
        return
    _, plans, _ = fitnet(student)
    parts = Parts()
    for number, plan in enumerate(plans):
        given = fitnet_taps(student, number)["student"]
        taps = {tap: value.clone().requires_grad_() for tap, value in given.items()}
        examples = {**fitnet_taps(teacher, number), "student": taps}
        context = Context(Builder(), torch.device("cpu"), 0, {})
        confs = adapter_confs(plans, plan)
        # The taps are given, so the step's student is a stand-in.
        stand_in = {"student": torch.nn.Identity()}
        namespace = dict(examples)
        step = Step(
            networks=stand_in,
            adapters=build_slots(plan, confs, namespace, parts, context),
            terms=build_terms(plan, namespace, parts, context),
            call=lambda network, batch, name, taps=taps: taps,
            precision=Precision(),
        )
        total, values = step(examples["batch"], {"teacher": examples["teacher"]})
        gradients = torch.autograd.grad(total, list(taps.values()))
        assert torch.isfinite(total) and values.keys() == plan.terms.keys()
        assert all(gradient.abs().sum() > 0 for gradient in gradients)
    FITTED.add(pair)


@pytest.mark.parametrize("student", CONTRASTS)
@pytest.mark.slow
def test_fitnet_fits_pairs_of_different_kinds(student):
    for teacher in CONTRASTS:
        fit(student, teacher)


@pytest.mark.slow
@pytest.mark.parametrize("student", PAIRED)
def test_fitnet_fits_every_pair(student):
    for teacher in PAIRED:
        fit(student, teacher)


@pytest.mark.slow
def test_fitnet_between_networks_that_share_nothing_passes_the_whole_check():
    assert list(check(compose(["method=fitnet", "model@teacher=vit_b_16", "model@student=mobilenet_v2"]))) == []


def _names(names: object) -> list[str]:
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


@pytest.mark.options("method")
def test_a_method_file_is_short_and_names_taps_only(option):
    path = CONF / "method" / f"{option}.yaml"
    text = path.read_text()
    assert len(text.splitlines()) <= 30
    conf = OmegaConf.to_container(OmegaConf.load(path))
    conf = {key: value for key, value in conf.items() if key not in ("defaults", "extra_models", "about")}
    addresses = re.findall(r"\b(?:student|teacher)\.([\w${}.]+)", str(conf))
    addresses = {each for each in addresses if not each.startswith(("$", "losses."))}
    words = addresses & {"{each}", *(f"{{{param}}}" for param in conf.get("params", {}))}
    if words:  # one for each of these
        addresses = (addresses - words) | {name for names in conf["params"].values() for name in _names(names)}
    more = BLOCKS if option in TOKENS else OF_REGIONS | OF_HEADS if option in DETECTION else set()
    assert addresses <= CANONICAL | more
    assert not re.search(r"channels|in_features|in_shape|out_shape", text.partition("\nabout:\n")[0])
