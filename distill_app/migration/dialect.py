"""The YAML of torchdistill: its tags as data. Nothing is imported, called or looked up."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from distill_app.errors import IrregularFile, UsageError
from distill_app.words import unknown

MOST_BYTES = 2**20  # its own configs have up to 12 kilobytes
MOST_VALUES = 100_000  # aliases of aliases unfold to any number


class Tagged(dict[str, Any]):
    """What a tag would build: `!import_call` with `key` and `init`, and so on."""

    def __init__(self, tag: str, content: Mapping[str, Any]):
        super().__init__(content)
        self.tag = tag


class _Loader(yaml.SafeLoader):
    """Plain types and the tags below, without the keys that only hold an anchor: `_root: &root ./data`.

    Nothing reads them but what refers to their anchors.
    """

    def __init__(self, stream: Any):
        super().__init__(stream)
        self._anchored: dict[int, yaml.Node] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Adds what has an anchor to those that have one, and leaves what holds one out of a mapping."""
        anchor = getattr(self.peek_event(), "anchor", None)
        node = super().compose_node(parent, index)
        if anchor is not None and node is not None:
            self._anchored[id(node)] = node
        if isinstance(node, yaml.MappingNode):
            node.value = [
                (key, value)
                for key, value in node.value
                if not (str(key.value).startswith("_") and id(value) in self._anchored)
            ]
        return node


def _sequence(loader: yaml.SafeLoader, node: yaml.Node) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, f"{node.tag} takes a list", node.start_mark)
    return loader.construct_sequence(node, deep=True)


def _mapping(loader: yaml.SafeLoader, node: yaml.Node) -> dict[Any, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, f"{node.tag} takes a mapping", node.start_mark)
    return loader.construct_mapping(node, deep=True)


def _text(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise yaml.constructor.ConstructorError(None, None, f"{node.tag} takes a text", node.start_mark)
    return str(loader.construct_scalar(node))


def _joined(join: Callable[[list[str]], str]) -> Callable[[yaml.SafeLoader, yaml.Node], str]:
    def construct(loader: yaml.SafeLoader, node: yaml.Node) -> str:
        parts = _sequence(loader, node)
        if any(isinstance(part, dict | list) for part in parts):
            raise yaml.constructor.ConstructorError(None, None, f"{node.tag} takes texts", node.start_mark)
        return join([str(part) for part in parts])

    return construct


def _described(loader: yaml.SafeLoader, node: yaml.Node) -> Tagged:
    return Tagged(node.tag, _mapping(loader, node))


def _attribute(loader: yaml.SafeLoader, node: yaml.Node) -> Tagged:
    parts = _sequence(loader, node)
    return Tagged(node.tag, {"of": parts[0] if parts else None, "name": parts[1] if len(parts) > 1 else None})


def _item(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    """An item of what is plain data already; of what would be built, a description."""
    entry = _mapping(loader, node)
    data, place = entry.get("data"), entry.get("index_or_key")
    if isinstance(data, dict | list) and not isinstance(data, Tagged):
        try:
            return data[place]  # type: ignore[index]
        except (LookupError, TypeError):
            mark = node.start_mark
            raise yaml.constructor.ConstructorError(None, None, f"{node.tag}: no {place!r} in data", mark) from None
    return Tagged(node.tag, entry)


# A tag -> what it is read as. Of a path ~ is kept: it is the home of whoever runs the experiment.
TAGS: dict[str, Callable[[yaml.SafeLoader, yaml.Node], Any]] = {
    "!join": _joined("".join),
    "!pathjoin": _joined(lambda parts: os.path.join(*parts) if parts else ""),
    "!expanduser": _text,
    "!abspath": _text,
    "!import_get": _described,
    "!import_call": _described,
    "!import_call_method": _described,
    "!call_method": _described,
    "!getattr": _attribute,
    "!setattr": _attribute,
    "!access_by_index_or_key": _item,
}
for _tag, _construct in TAGS.items():
    _Loader.add_constructor(_tag, _construct)


def read_config(path: Path) -> dict[str, Any]:
    """A config as plain containers and `Tagged`.

    Raises:
        UsageError: No such file, no YAML, a tag that torchdistill has not, or more than a config has.
    """
    from distill_app.runs.untrusted import open_regular

    try:
        with open_regular(path, links=True) as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, IrregularFile) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"{path} has more than {MOST_BYTES:,} bytes, which no config has")
    try:
        content = yaml.load(data.decode("utf-8"), Loader=_Loader)  # a SafeLoader with the tags above
    except (UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no YAML: {type(error).__name__}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: {_told(error)}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no mapping, so it is no config of torchdistill")
    if _count(content, MOST_VALUES) > MOST_VALUES:
        raise UsageError(f"{path} unfolds to more than {MOST_VALUES:,} values, which no config has")
    return content


def _told(error: yaml.YAMLError) -> str:
    problem, mark = str(getattr(error, "problem", None) or error), getattr(error, "problem_mark", None)
    place = f" in line {mark.line + 1}" if mark is not None else ""
    marker = "could not determine a constructor for the tag "
    if problem.startswith(marker):
        tag = problem.removeprefix(marker).strip("'")
        return (
            f"{unknown('tag', tag, TAGS)}{place}; nothing in a config is run here, so a tag of your own cannot be read"
        )
    return f"{problem}{place}" if isinstance(error, yaml.constructor.ConstructorError) else f"no YAML{place}: {problem}"


def _count(value: Any, most: int) -> int:
    """How many values there are, aliases unfolded; stops counting past `most`."""
    waiting, count = [value], 0
    while waiting and count <= most:
        one = waiting.pop()
        count += 1
        if isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return count
