"""From `_target_` to objects: the only module that calls Hydra's instantiate.

A target may come from this package, from the parts of torch and torchvision that build things, and from packages that
the user names in `runtime.allow`. Everything else is refused: Hydra itself would call any function of any package.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from distill_app.wiring import unknown

ROOTS = (
    "distill_app",
    "torch.nn",
    "torch.optim",
    "torch.utils.data",
    "torch.hub.load",
    "torchvision.models",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.ops",
)


class ConfigError(ValueError):
    """What is wrong with a config, one message per error."""

    def __init__(self, errors: list[str]):
        super().__init__("\n".join(errors))
        self.errors = errors


class Builder:
    """Builds objects from config, within the allow-list.

    Args:
        allow: Further packages from which a `_target_` may come.
    """

    def __init__(self, allow: Iterable[str] = ()):
        self.roots = (*ROOTS, *allow)

    def build(self, conf: Mapping[str, Any], *args: Any, key: str, **context: Any) -> Any:
        """Instantiates `conf`, nested targets first.

        Args:
            conf: A mapping with `_target_`. `_partial_` at its top says that the program adds arguments, which is
                what happens here; on nested targets it means a partial.
            *args: Positional arguments of the outermost target.
            key: The config key, for messages.
            **context: Arguments that the outermost target gets if it has a parameter of that name and the config
                does not set it.

        Raises:
            ConfigError: The target cannot be imported, is not allowed, or refuses its arguments.
        """
        errors = self.problems(conf, key=key, context=context, positional=len(args))
        if errors:
            raise ConfigError(errors)
        target = self.locate(conf["_target_"], key=key)
        given = {name: value for name, value in context.items() if _accepts(target, name) and name not in conf}
        try:
            make = instantiate({**conf, "_partial_": True}, _convert_="all")
            return make(*args, **given)
        except ConfigError:
            raise
        except InstantiationException as error:
            raise ConfigError([f"{key}: {error.__cause__ or error}"]) from error
        except Exception as error:
            raise ConfigError([f"{key}: {conf['_target_']}: {_explain(error, target)}"]) from error

    def locate(self, target: Any, *, key: str) -> Any:
        """Imports a dotted path.

        Raises:
            ConfigError: It is not there, or it is outside the allow-list.
        """
        path = str(target)
        if not self._inside(path):
            package = path.split(".", 1)[0]
            raise ConfigError(
                [
                    f"{key}._target_: {path!r} is outside what may be built ({', '.join(self.roots)}); "
                    f"if you trust the package, add it: 'runtime.allow=[{package}]'"
                ]
            )
        try:
            found = get_object(path)
        except Exception as error:
            raise ConfigError([f"{key}._target_: cannot import {path!r}: {_import_hint(path, error)}"]) from error
        home = getattr(found, "__module__", None) or ""
        if not any(home == root.split(".")[0] or home.startswith(root.split(".")[0] + ".") for root in self.roots):
            raise ConfigError([f"{key}._target_: {path!r} leads to {home!r}, outside what may be built"])
        if not callable(found):
            raise ConfigError([f"{key}._target_: {path!r} is a {type(found).__name__}, not something to call"])
        return found

    def _inside(self, path: str) -> bool:
        return any(path == root or path.startswith(root + ".") for root in self.roots)

    def problems(
        self, conf: Any, *, key: str, context: Iterable[str] = (), positional: int = 0, partial: bool = False
    ) -> list[str]:
        """What is wrong with a config to build: targets, and arguments bound against their signatures.

        Args:
            conf: The mapping.
            key: Its config key.
            context: Names of the arguments that the program supplies.
            positional: How many positional arguments the program supplies.
            partial: Whether missing arguments are supplied later.
        """
        if not isinstance(conf, Mapping) or "_target_" not in conf:
            return [f"{key}: needs a _target_, a dotted path to what shall be built; got {conf!r}"]
        errors = []
        for name, value in conf.items():
            for path, nested in _nested(value, f"{key}.{name}"):
                errors += self.problems(nested, key=path, partial=bool(nested.get("_partial_")))
        try:
            target = self.locate(conf["_target_"], key=key)
        except ConfigError as error:
            return errors + error.errors
        errors += _hub_problems(conf, key=key, roots=self.roots)
        return errors + _binding_problems(target, conf, key, set(context), positional, partial)


def _nested(value: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The outermost mappings with a `_target_` inside a value, with their keys."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield key, value
            return
        for name, item in value.items():
            yield from _nested(item, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _nested(item, f"{key}[{position}]")


def signature_of(target: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):
        return None


def _accepts(target: Any, name: str) -> bool:
    signature = signature_of(target)
    return signature is not None and name in signature.parameters


def _binding_problems(
    target: Any, conf: Mapping[str, Any], key: str, context: set[str], positional: int, partial: bool
) -> list[str]:
    signature = signature_of(target)
    if signature is None:
        return []
    kinds = inspect.Parameter
    parameters = list(signature.parameters.values())
    by_position = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)][:positional]
    named = {
        p.name: p
        for p in parameters
        if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY) and p not in by_position
    }
    open_ended = any(p.kind is kinds.VAR_KEYWORD for p in parameters)
    given = [name for name in conf if not (name.startswith("_") and name.endswith("_"))]
    what = conf["_target_"]
    errors = []
    if not open_ended:
        errors += [f"{key}.{name}: {unknown('argument', name, named)} of {what}" for name in given if name not in named]
    if not partial:
        errors += [
            f"{key}.{name}: {what} needs this argument; set it: '{key}.{name}=...'"
            for name, p in named.items()
            if p.default is kinds.empty and name not in given and name not in context
        ]
    return errors


def _hub_problems(conf: Mapping[str, Any], *, key: str, roots: Iterable[str]) -> list[str]:
    """Code of a remote repository runs only from a commit that the user allowed by name."""
    if conf["_target_"] != "torch.hub.load" or conf.get("source") == "local":
        return []
    repository = str(conf.get("repo_or_dir"))
    if ":" in repository and repository in roots:
        return []
    return [
        f"{key}.repo_or_dir: torch.hub would run the code of {repository!r}; use source: local with a checkout, or "
        f"allow one commit of it: 'runtime.allow=[\"owner/name:commit\"]' and the same text here"
    ]


def _import_hint(path: str, error: Exception) -> str:
    """The reason, and the nearest name in the deepest module that does exist."""
    import importlib

    parts = path.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:depth]))
        except ImportError:
            continue
        names = [name for name in dir(module) if not name.startswith("_")]
        near = unknown("name", parts[depth], names).split(" (there are")[0]
        return f"{near} in {'.'.join(parts[:depth])}"
    return f"no package {parts[0]!r} is installed in this environment"


def _explain(error: Exception, target: Any) -> str:
    """An exception of a constructor; an unexpected keyword gets its nearest match."""
    text = f"{type(error).__name__}: {error}"
    if "unexpected keyword argument" not in str(error):
        return text
    owner = str(error).split("(")[0].split(".")[0]
    candidate = getattr(inspect.getmodule(target), owner, target)
    signature = signature_of(candidate)
    given = str(error).rsplit("'", 2)[-2]
    return unknown("argument", given, signature.parameters) if signature else text
