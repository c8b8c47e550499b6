"""The package as a house: rooms import downwards only, and in no circle."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "distill_app"
# Highest first; rooms of one floor may use each other as long as no circle comes of it.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("api", "app"),
    ("verbs", "check", "launch"),
    ("training",),
    ("deploy",),
    ("analysis", "cache", "tasks", "models"),
    ("networks", "data", "machine", "adapters"),
    ("config", "report", "trackers", "migration"),
    ("runs", "losses", "world", "errors", "extras", "words", "seeds"),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def _imports(path: Path) -> set[str]:
    """Modules of this package that a file imports, wherever in the file it does, types included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "distill_app":
            parts = (node.module or "").split(".")[1:]
            found |= {".".join([*parts, name.name]) for name in node.names} if len(parts) < 2 else {".".join(parts)}
        elif isinstance(node, ast.Import):
            found |= {name.name.removeprefix("distill_app.") for name in node.names if "distill_app." in name.name}
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in FILES}


def _uses(path: Path) -> dict[str, Path]:
    """Files that a file imports, by module; `from room import Name` counts as the room's own `__init__`."""
    files = {}
    for module in _imports(path):
        for candidate in (module, f"{module}.__init__", module.rpartition(".")[0] + ".__init__"):
            if candidate in MODULES:
                files[candidate] = MODULES[candidate]
                break
    return files


def test_every_room_has_its_floor():
    assert {_room(path) for path in FILES} == set(FLOOR_OF)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards_only(module):
    here = FLOOR_OF[_room(MODULES[module])]
    upwards = {used for used, path in _uses(MODULES[module]).items() if FLOOR_OF[_room(path)] < here}
    assert not upwards, f"{module} imports from a higher floor: {sorted(upwards)}"


@pytest.mark.parametrize("nodes", ["files", "rooms"])
def test_no_circle_of_imports(nodes):
    edges: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        one = module if nodes == "files" else _room(path)
        others = {used if nodes == "files" else _room(MODULES[used]) for used in _uses(path)}
        edges.setdefault(one, set()).update(others - {one})
    while leaves := {node for node, used in edges.items() if not used & edges.keys()}:
        edges = {node: used for node, used in edges.items() if node not in leaves}
    assert not edges, f"a circle among {sorted(edges)}"
