"""From `_target_` to objects: the only module that calls Hydra's instantiate.

A target may come from the parts of this package, torch and torchvision that belong at its key (`config.kinds`), and
from packages that the user names in `runtime.allow`. Everything else is refused: Hydra itself would call any function
of any package.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from distill_app.config.binding import accepts, binding_problems, explain, tensors
from distill_app.config.kinds import ROOTS, TIMM, Kind, kind_of
from distill_app.config.tree import mount_line
from distill_app.errors import ConfigError, NotInstalled
from distill_app.extras import EXTRAS, not_installed, remedy
from distill_app.words import advises, unknown

# They lie within the roots, and fetch, unpack or unpickle files rather than build anything.
EXCEPT = (
    "torchvision.datasets.utils",
    "torchvision.datasets.lsun",
    "torch.utils.data.datapipes",
    "timm.models._helpers",
    "timm.models._hub",
    "timm.models._builder",
)


class Builder:
    """Builds objects from config, within the allow-list.

    Args:
        allow: Further packages from which a `_target_` may come.
    """

    def __init__(self, allow: Iterable[str] = ()):
        self.allow = tuple(allow)
        # It is allowed from the start, and much of it is for scripts: those read and write files of any name.
        self._own = tuple(root for each in self.allow for root in (TIMM if each == "timm" else (each,)))

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
        given = {name: value for name, value in context.items() if accepts(target, name) and name not in conf}
        try:
            with _weights_only():
                make = instantiate({**conf, "_partial_": True}, _convert_="all")
                return make(*args, **{**tensors(target, make.keywords), **given})
        except ConfigError:
            raise
        except InstantiationException as error:
            raise ConfigError([self._explain_nested(error, conf, key)]) from _cause(error)
        except Exception as error:
            raise ConfigError([f"{key}: {explain(error, target, conf, key)}"]) from _cause(error)

    def function(self, conf: Mapping[str, Any], *, key: str) -> Callable[..., Any]:
        """A function that is called later, with its settings from config and one positional argument.

        Raises:
            ConfigError: It cannot be imported, is not allowed, or has no such settings.
        """
        if errors := self.problems(conf, key=key, positional=1):
            raise ConfigError(errors)
        try:
            function: Callable[..., Any] = instantiate({**conf, "_partial_": True}, _convert_="all")
        except InstantiationException as error:
            raise ConfigError([self._explain_nested(error, conf, key)]) from error
        return function

    def locate(self, target: Any, *, key: str, kind: Kind | None = None) -> Any:
        """Imports a dotted path.

        Args:
            target: The path.
            key: The config key of what shall be built.
            kind: What belongs there; None: what the key says.

        Raises:
            ConfigError: It is not there, or it is outside the allow-list.
        """
        path, kind = str(target), kind or kind_of(key)
        if errors := self._misplaced(path, key=key, kind=kind):
            raise ConfigError(errors)
        try:
            places = list(_follow(path))
        except NotInstalled as error:
            raise ConfigError([f"{key}._target_: {error}"]) from error
        except ImportError as error:
            raise ConfigError([f"{key}._target_: cannot import {path!r}: {error}"]) from error
        if not self._inside(path, kind):
            raise ConfigError([self._outside(path, key=key, kind=kind, trust=path)])
        for place, thing in places:
            home = _home(thing)
            if home not in (None, place) and not self._inside(str(home), kind):
                raise ConfigError([f"{key}._target_: {path!r} leads to {home!r}, outside what may be built"])
        found = places[-1][1]
        if not callable(found):
            raise ConfigError([f"{key}._target_: {path!r} is a {type(found).__name__}, not something to call"])
        return found

    def foreign(self, conf: Any, *, key: str, kind: Kind | None = None) -> list[str]:
        """What needs no import to be refused: no target, one of a package that nobody named, or one of another kind.

        Args:
            conf: A config to build.
            key: Its config key.
            kind: What belongs there; None: what the key says.
        """
        kind = kind or kind_of(key)
        if errors := untargeted(conf, key=key):
            return errors
        for name, value in conf.items():
            for path, nested in _nested(value, f"{key}.{name}"):
                errors += self.foreign(nested, key=path, kind=kind.part)
        return errors + self._misplaced(str(conf["_target_"]), key=key, kind=kind)

    def _misplaced(self, path: str, *, key: str, kind: Kind) -> list[str]:
        package = path.split(".", 1)[0]
        if self._inside(path, kind):
            return []
        if package not in {root.split(".", 1)[0] for root in ROOTS}:
            return [self._outside(path, key=key, kind=kind, trust=path if package in self.allow else package)]
        if not _below(path, ROOTS):
            return []  # what is there, and what was meant, is known when it is imported
        roots = ", ".join([*kind.roots, *self.allow])
        return [
            f"{key}._target_: {path!r} is no {kind.name}; what may stand here comes from {roots}, or from a package of "
            f"your own that runtime.allow names"
        ]

    def _outside(self, path: str, *, key: str, kind: Kind, trust: str) -> str:
        roots = ", ".join([*kind.roots, *self.allow])
        return (
            f"{key}._target_: {path!r} is outside what may be built here ({roots}); if you trust it: "
            f"'runtime.allow=[{', '.join([*self.allow, trust])}]', or --allow {trust} for a run that exists"
        )

    def _inside(self, path: str, kind: Kind) -> bool:
        return _below(path, (*kind.roots, *self._own)) and not _below(path, EXCEPT)

    def _explain_nested(self, error: InstantiationException, conf: Mapping[str, Any], key: str) -> str:
        """Hydra wraps what a nested target raises, and says where it stands."""
        found = re.search(r"full_key: (\S+)", str(error))
        place = re.sub(r"\b_args_(\d+)", r"_args_.\1", found[1]) if found else ""
        nested: Any = conf
        for step in place.split(".") if place else ():
            nested = nested[int(step)] if isinstance(nested, list) else nested[step]
        where = f"{key}.{place}" if place else key
        kind = kind_of(key).part if place else kind_of(key)
        target = self.locate(nested["_target_"], key=where, kind=kind)
        return f"{where}: {explain(error.__cause__ or error, target, nested, where)}"

    def problems(
        self,
        conf: Any,
        *,
        key: str,
        context: Iterable[str] = (),
        positional: int = 0,
        partial: bool = False,
        kind: Kind | None = None,
    ) -> list[str]:
        """What is wrong with a config to build: targets, and arguments bound against their signatures.

        Args:
            conf: The mapping.
            key: Its config key.
            context: Names of the arguments that the program supplies.
            positional: How many positional arguments the program supplies.
            partial: Whether missing arguments are supplied later.
            kind: What belongs there; None: what the key says.
        """
        kind = kind or kind_of(key)
        if errors := untargeted(conf, key=key):
            return errors
        for name, value in conf.items():
            for path, nested in _nested(value, f"{key}.{name}"):
                errors += self.problems(nested, key=path, partial=bool(nested.get("_partial_")), kind=kind.part)
        try:
            target = self.locate(conf["_target_"], key=key, kind=kind)
        except ConfigError as error:
            return errors + error.errors
        errors += _hub_problems(conf, key=key, allow=self.allow)
        return errors + binding_problems(target, conf, key, set(context), positional, partial)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Meanwhile constructors of torchvision, which unpickle what lies in torch hub's folder, read tensors alone."""
    api = sys.modules.get("torchvision.models._api")
    if api is None:
        yield
        return
    original = api.WeightsEnum.get_state_dict

    def plain(self: Any, *args: Any, **options: Any) -> Any:
        return original(self, *args, **{**options, "weights_only": True})

    api.WeightsEnum.get_state_dict = plain
    try:
        yield
    finally:
        api.WeightsEnum.get_state_dict = original


def _cause(error: Exception) -> Exception | None:
    """What a full traceback shows as the cause: not what advises to load unsafely."""
    return None if advises(error) else error


def _below(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(root + ".") for root in roots)


def _follow(path: str) -> Iterator[tuple[str, Any]]:
    """Every place on a dotted path with what is there; modules are imported as needed.

    Raises:
        NotInstalled: The package is one that an extra brings.
        ImportError: What is not there, with the nearest name; or why a module cannot be imported.
    """
    found, place = None, ""
    for name in path.split("."):
        parent, place = place, f"{place}.{name}" if place else name
        if found is not None and hasattr(found, name):
            found = getattr(found, name)
        else:
            try:
                found = import_module(place)
            except Exception as error:
                if isinstance(error, ModuleNotFoundError) and error.name == place:
                    if place in EXTRAS:
                        raise NotInstalled(not_installed(place)) from error
                    raise ImportError(_not_there(name, found, parent)) from error
                raise ImportError(f"importing {place} raises {type(error).__name__}: {error}{remedy(error)}") from error
        yield place, found


def _not_there(name: str, parent: Any, path: str) -> str:
    if parent is None:
        return f"no package {name!r} is installed or lies in this folder (PYTHONPATH names further folders)"
    near = unknown("name", name, [each for each in dir(parent) if not each.startswith("_")])
    return f"{near.split(' (there are')[0]} in {path}"


def _home(thing: Any) -> str | None:
    """Where a module, class or function was defined, however it was reached."""
    if isinstance(thing, ModuleType):
        return thing.__name__
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    return f"{module}.{name}" if module and name else None


def untargeted(conf: Any, *, key: str) -> list[str]:
    """The error of a config that does not say what to build, if so."""
    if isinstance(conf, Mapping) and conf.get("_target_") is not None:
        return []
    if line := mount_line(key, conf) if isinstance(conf, str) else None:
        return [f"{key}: cannot be {conf!r}, which is an option of a group; write '{line}'"]
    return [f"{key}: needs a _target_, a dotted path to what shall be built; got {conf!r}"]


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


def _hub_problems(conf: Mapping[str, Any], *, key: str, allow: Iterable[str]) -> list[str]:
    """Code of a remote repository runs only from a commit that the user allowed by name."""
    if conf["_target_"] != "torch.hub.load" or conf.get("source") == "local":
        return []
    repository = str(conf.get("repo_or_dir"))
    if ":" in repository and repository in allow:
        return []
    return [
        f"{key}.repo_or_dir: torch.hub would run the code of {repository!r}; use source: local with a checkout, or "
        f"allow one commit of it: 'runtime.allow=[\"owner/name:commit\"]' and the same text here"
    ]
