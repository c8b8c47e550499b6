"""`distill export`: a network as a file for other programs, verified, with what says how to use it."""

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_app.errors import UsageError
from distill_app.verbs.stored import add_network, add_run, mark_of, network_name, open_run

SPLIT = "split"
_FORMATS = ("state_dict", "safetensors", "torch_export", "torchscript", "onnx", SPLIT)


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_run(parser, checkpoints=True)
    add_network(parser)
    to = parser.add_argument(
        "--to", metavar="FORMAT", help=f"{', '.join(_FORMATS)}; default: what --output ends in, or else state_dict"
    )
    to.words = _FORMATS  # type: ignore[attr-defined] # for completion
    parser.add_argument(
        "--output",
        type=Path,
        help="a file (.pt, .safetensors, .pt2, .ts, .onnx), or a folder; default: RUN/export/FORMAT/",
    )
    parser.add_argument(
        "--eight-bits", action="store_true", help="of --to split: what crosses the cut is quantised to 8 bits"
    )
    parser.add_argument("--licence", metavar="ID", help="of the weights, for the model card: apache-2.0, mit, ...")
    parser.epilog = (
        "Beside the network lie a JSON file (size, mean, std, transforms, classes) and a model card. An export is "
        "compared with the network for several batch sizes before it is put in its place; a wrong one is an error. "
        "--to split writes two files, the head and the tail of a network with a bottleneck."
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the files, and says how far the export is from the network."""
    place, folder, config = open_run(arguments)
    # Imported here, since torch takes seconds and what is wrong with the folder is told at once.
    from distill_app.deploy.formats import FORMATS, format_of, require

    network = network_name(config, arguments.network)
    if arguments.to == SPLIT:
        return _split(arguments, place, folder, config, network=network)
    if arguments.eight_bits:
        raise UsageError("--eight-bits: is of --to split, where something crosses a cut")
    to = format_of(arguments.to, arguments.output)
    require(to)
    output = arguments.output or folder / "export" / _name(arguments, place, folder, to=to)
    if output.resolve() == folder.resolve():
        raise UsageError(f"--output: {output} is the run itself; name a folder in it, or none")
    from distill_app.verbs.deployment import export

    written, which = export(
        config, place, folder=folder, network=network, to=to, output=output, licence=arguments.licence
    )
    difference = f"at most {written.difference:.2g} of the largest one" if written.difference else "nothing"
    print(f"verified: its answers to {which}, in batches of 1, 2, 5 and 8, differ from the network's by {difference}")
    print("\n".join(f"written: {file}" for file in written.files))
    if not written.classes:
        return 0
    trust = f" --allow {FORMATS[to].code}" if FORMATS[to].code else ""
    print(f"next:     distill predict {shlex.quote(str(written.files[0]))} IMAGES{trust}")
    return 0


def _split(arguments: argparse.Namespace, place: Path, folder: Path, config: Mapping[str, Any], *, network: str) -> int:
    from distill_app.verbs.deployment import export_split

    name = _name(arguments, place, folder, to=f"{SPLIT}_8bit" if arguments.eight_bits else SPLIT)
    written, which, report = export_split(
        config,
        place,
        folder=folder,
        network=network,
        output=arguments.output or folder / "export" / name,
        eight_bits=arguments.eight_bits,
        licence=arguments.licence,
    )
    print(f"{report}")
    print(f"verified: on {which} the tail behind the head answers as the whole network, {_differing(written)}")
    print("\n".join(f"written: {file}" for file in written.files))
    return 0


def _differing(written: Any) -> str:
    return f"but for {written.difference:.2g} of the largest answer" if written.difference else "to the bit"


def _name(arguments: argparse.Namespace, place: Path, folder: Path, *, to: str) -> str:
    """What the folder of an export is called: the format, and what tells it from that of the student at the end."""
    network = [arguments.network] if arguments.network not in (None, "student") else []
    return "_".join([to, *network, *([mark_of(place, folder)] if place != folder else [])])
