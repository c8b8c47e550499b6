"""Every file in conf/loss names a loss that exists and the arguments that it takes."""

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

FILES = sorted((Path(__file__).parents[2] / "conf" / "loss").glob("*.yaml"))
PROGRAM_SUPPLIES = {"labels", "sample_indices", "input_shapes", "num_classes"}
ROOTS = {"batch", "student", "teacher", "adapters"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_loss_file_fits_its_loss(path):
    assert path.read_text().startswith("# ")
    conf = OmegaConf.to_container(OmegaConf.load(path))
    assert set(conf) <= {"loss", "inputs", "weight"}
    arguments = dict(conf["loss"])
    loss = get_object(arguments.pop("_target_"))
    constructor = inspect.signature(loss)
    supplied = dict.fromkeys(PROGRAM_SUPPLIES & set(constructor.parameters))
    constructor.bind(**{**supplied, **arguments})
    inspect.signature(loss.forward).bind(None, **conf["inputs"])
    for value in conf["inputs"].values():
        for address in value if isinstance(value, list) else [value]:
            assert address.split(".")[0] in ROOTS


def test_every_loss_has_a_file():
    from distill_app import losses

    named = {OmegaConf.load(path).loss._target_.rsplit(".", 1)[1] for path in FILES}
    modules = {name for name in losses.__all__ if hasattr(getattr(losses, name), "forward")}
    assert modules <= named
