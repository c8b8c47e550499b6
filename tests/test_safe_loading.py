"""Nothing in the package loads a file in a way that could run what is in it; read from the syntax of its code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "distill_app").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])
_UNPICKLERS = ("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle")
# What runs a file's code, behind an error that names the function until somebody allows it.
ASKED = {"distill_app/deploy/formats.py": {"torch.jit.load(str(path), map_location='cpu')"}}
_NEVER = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen"),
    *("builtins.eval", "builtins.exec", "builtins.compile"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all", "yaml.full_load_all"),
    *("torch.hub.load", "torch.jit.load", "torch.package.PackageImporter", "torch.serialization.load"),
    *("pandas.read_pickle", "numpy.lib.format.read_array", "torch.serialization.add_safe_globals"),
}
# Their other arguments may be anything as long as this one is there and says so.
_ONLY_WITH = {
    "torch.load": ("weights_only", True),
    "torch.hub.load_state_dict_from_url": ("weights_only", True),
    "load_state_dict_from_url": ("weights_only", True),
    "get_state_dict": ("weights_only", True),
}


def _names(tree: ast.Module) -> dict[str, str]:
    """What a name of a module stands for: np -> numpy."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.asname: name.name for name in node.names if name.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    return found


def _dotted(node: ast.AST, names: dict[str, str]) -> str:
    """The dotted path of what is called; `?` for what is no name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    parts.insert(0, names.get(node.id, node.id) if isinstance(node, ast.Name) else "?")
    return ".".join(parts)


def _option(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _is(value: ast.expr | None, expected: object) -> bool:
    return isinstance(value, ast.Constant) and value.value is expected


def _is_safe_loader(value: ast.expr | None, tree: ast.Module) -> bool:
    """Whether an expression can only be a safe loader of YAML; a name is what it is assigned to."""
    if isinstance(value, ast.Name):
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == value.id]
        if classes:  # with tags of its own
            return all(node.bases and all(_is_safe_loader(base, tree) for base in node.bases) for node in classes)
        assigned = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and any(ast.unparse(target) == value.id for target in node.targets)
        ]
        return bool(assigned) and all(_is_safe_loader(each, tree) for each in assigned)
    safe = ("yaml.SafeLoader", "yaml.CSafeLoader", "getattr(yaml, 'CSafeLoader', yaml.SafeLoader)")
    return value is not None and ast.unparse(value) in safe


def unsafe(text: str) -> Iterator[str]:
    """The calls and imports of a module that could run what is in a file."""
    tree = ast.parse(text)
    names = _names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            paths = [".".join(filter(None, (module, name.name))) for name in node.names]
            yield from (path for path in paths if path.split(".")[0] in _UNPICKLERS)
            yield from (path for path in paths if path.startswith("torch.distributed.checkpoint"))
        elif (isinstance(node, ast.Attribute) and "distributed.checkpoint" in _dotted(node, names)) or (
            isinstance(node, ast.Call) and _is_unsafe(node, tree, names)
        ):
            yield ast.unparse(node)


def _is_unsafe(call: ast.Call, tree: ast.Module, names: dict[str, str]) -> bool:
    path = _dotted(call.func, names)
    needed = _ONLY_WITH.get(path) or _ONLY_WITH.get(path.rpartition(".")[2] if path != "load" else "")
    if needed is not None:
        return not _is(_option(call, needed[0]), needed[1])
    if path in ("numpy.load", "numpy.lib.npyio.load"):
        return not _is(_option(call, "allow_pickle") or ast.Constant(False), False)
    if path in ("yaml.load", "yaml.parse"):
        return not _is_safe_loader(_option(call, "Loader"), tree)
    if path.split(".")[0] == "subprocess" and _option(call, "shell") is not None:
        return True
    return path in _NEVER


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_loaded_in_a_way_that_could_run_it(path):
    allowed = ASKED.get(path.relative_to(ROOT).as_posix(), set())
    assert set(unsafe(path.read_text(encoding="utf-8"))) - allowed == set()


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "import torch\ntorch.load(f, weights_only=trust)",
        "from torch import load\nload(f)",
        "from torch import load as read\nread(f, map_location='cpu')",
        "import torch as t\nt.load(f, **options)",
        "import pickle",
        "from pickle import loads",
        "def f():\n    import cloudpickle as c",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import numpy\nnumpy.load(f, allow_pickle=trust)",
        "import yaml\nyaml.load(f, Loader=yaml.Loader)",
        "import yaml\nyaml.load(f)",
        "import yaml\nloader = yaml.UnsafeLoader\nyaml.load(f, Loader=loader)",
        "from yaml import unsafe_load\nunsafe_load(f)",
        "from torch.hub import load_state_dict_from_url\nload_state_dict_from_url(url)",
        "import torch\ntorch.hub.load_state_dict_from_url(url, check_hash=True)",
        "weights.get_state_dict(progress=True)",
        "import torch\ntorch.hub.load('owner/name', 'net')",
        "import torch.distributed.checkpoint as dcp",
        "from torch.distributed.checkpoint import load",
        "from torch.distributed import checkpoint",
        "import torch\ntorch.distributed.checkpoint.load(state)",
        "eval(text)",
        "exec(text)",
        "import os\nos.system(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "import torch\ntorch.jit.load(f)",
    ],
)
def test_what_could_run_a_file_is_found(text):
    assert list(unsafe(text))


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(f, map_location='cpu', weights_only=True)",
        "import numpy as np\nnp.load(f)",
        "import numpy as np\nnp.load(f, allow_pickle=False)",
        "import yaml\nyaml.load(f, Loader=getattr(yaml, 'CSafeLoader', yaml.SafeLoader))",
        "import yaml\nloader = yaml.SafeLoader\nyaml.load(f, Loader=loader)",
        "import yaml\nyaml.safe_load(f)",
        "import json\njson.load(f)",
        "weights.get_state_dict(progress=True, weights_only=True)",
        "net.eval()\ncopied(net).eval()\nre.compile('a')\ntorch.compile(net)",
        "import subprocess\nsubprocess.run(['git'])",
    ],
)
def test_what_runs_nothing_is_left_alone(text):
    assert not list(unsafe(text))
