"""The methods of the paper, and the tiny pairs of networks that tests of all methods run."""

ANY_PAIR = ["kd", "fitnet", "fsp", "at", "pkt", "ft", "dab", "rkd", "vid", "cckd", "spkd", "crd"]
ANY_PAIR += ["tfkd_self", "tfkd_reg", "sskd", "l2", "pad_l2"]
SPLIT = ("hnd", "ghnd")  # their student is the teacher's architecture with a bottleneck, which they bring along
PAPER = [*ANY_PAIR, *SPLIT]
# Widths, depths and map sizes differ.
TINY = ("dataset=fake", "dataset.image_size=16", "dataset.train.size=48", "dataset.test.size=16")
TINY = (*TINY, "dataset.validation_fraction=0", "stage.epochs=1")
PAIR = (*TINY, "prelude=none", "stage.batch_size=16", "model@teacher=cres_w32", "scheduler@stage.scheduler=constant")


def base(method: str) -> tuple[str, ...]:
    return PAIR if method in SPLIT else (*PAIR, "model@student=plain_8_16")
