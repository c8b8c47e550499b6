"""The methods that are tested as a matter of course, and the tiny pairs of networks that they run."""

from distill_app.config.groups import options_of

SPLIT = ("hnd", "ghnd")  # their student is the teacher's architecture with a bottleneck, which they bring along
POOLING = (
    "cat_kd",
    "sdd",
    "simkd",
)  # they see the last map through the classifier, where the network averages the one for the other
# For networks that compute losses themselves, and for their pyramids.
PYRAMIDS = ("cwd_fpn", "fgd", "fgfi", "l2_fpn", "mgd_fpn", "pkd_fpn")
REGIONS = ("roi_kd", "roi_dkd", "roi_dist")  # for two R-CNNs
HEADS = ("crosskd",)  # for two RetinaNets
DETECTION = ("own", "own_rcnn", "pseudo_boxes", *PYRAMIDS, *REGIONS, *HEADS)
SEGMENTATION = ("seg_ce", "seg_kd", "seg_cwd", "seg_kta", "skds", "cirkd", "ifvd")  # for networks of maps of classes
# Several teachers, each of which has to pool by the average.
CONFIDENT = ("ca_mkd",)
# Both networks are ViTs, whose blocks they compare.
TOKENS = ("vitkd",)
# Every method whose file is there, but for labels alone, for takd, which is kd twice and wants a third network, and for
# the one whose labels are several for each image.
OTHERS = ("ce", "takd", "multilabel_kd", *DETECTION, *SEGMENTATION, *POOLING, *SPLIT, *CONFIDENT, *TOKENS)
ANY_PAIR = [name for name in options_of("method") if name not in OTHERS]
ALL = [*ANY_PAIR, *POOLING, *SPLIT, *CONFIDENT, *TOKENS]
# Widths, depths and map sizes differ.
TINY = ("dataset=fake", "dataset.image_size=16", "dataset.train.size=48", "dataset.test.size=16")
TINY = (*TINY, "dataset.validation_fraction=0", "stage.epochs=1")
PAIR = (*TINY, "prelude=none", "stage.batch_size=16", "model@teacher=cres_w32", "scheduler@stage.scheduler=constant")
PAIR = (*PAIR, "teacher.allow_random=true")


def tokens(network: str, *, width: int) -> tuple[str, ...]:
    """A ViT of 12 narrow blocks and 16 patches of images of 16 px."""
    sizes = {"patch_size": 4, "num_heads": 2, "hidden_dim": width, "mlp_dim": width}
    return (f"model@{network}=vit_ti_16", *(f"{network}.net.{key}={value}" for key, value in sizes.items()))


def base(method: str) -> tuple[str, ...]:
    if method in TOKENS:
        return (*PAIR, *tokens("teacher", width=24), *tokens("student", width=16))
    return PAIR if method in SPLIT else (*PAIR, "model@student=plain_8_16")
