"""From `_target_` to objects: the only module that calls Hydra's instantiate.

A target may come from this package, from the parts of torch and torchvision that build things, and from packages that
the user names in `runtime.allow`. Everything else is refused: Hydra itself would call any function of any package.
"""

import inspect
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from distill_app.config.tree import mount_line
from distill_app.errors import ConfigError
from distill_app.words import unknown

ROOTS = (
    "distill_app.adapters",
    "distill_app.data",
    "distill_app.launch",
    "distill_app.losses",
    "distill_app.models",
    "distill_app.tasks",
    "torch.nn",
    "torch.optim",
    "torch.utils.data",
    "torch.hub.load",
    "torchvision.models",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.ops",
)
# They lie within the roots, and fetch, unpack or unpickle files rather than build anything.
EXCEPT = ("torchvision.datasets.utils", "torch.utils.data.datapipes")


class Builder:
    """Builds objects from config, within the allow-list.

    Args:
        allow: Further packages from which a `_target_` may come.
    """

    def __init__(self, allow: Iterable[str] = ()):
        self.allow = tuple(allow)
        self.roots = (*ROOTS, *self.allow)

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
            return make(*args, **{**_tensors(target, make.keywords), **given})
        except ConfigError:
            raise
        except InstantiationException as error:
            raise ConfigError([self._explain_nested(error, conf, key)]) from error
        except Exception as error:
            raise ConfigError([f"{key}: {_explain(error, target, conf, key)}"]) from error

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

    def locate(self, target: Any, *, key: str) -> Any:
        """Imports a dotted path.

        Raises:
            ConfigError: It is not there, or it is outside the allow-list.
        """
        path = str(target)
        if errors := self._foreign_package(path, key=key):
            raise ConfigError(errors)
        try:
            places = list(_follow(path))
        except ImportError as error:
            raise ConfigError([f"{key}._target_: cannot import {path!r}: {error}"]) from error
        if not self._inside(path):
            raise ConfigError([self._outside(path, key=key, trust=path)])
        for place, thing in places:
            home = _home(thing)
            if home not in (None, place) and not self._inside(str(home)):
                raise ConfigError([f"{key}._target_: {path!r} leads to {home!r}, outside what may be built"])
        found = places[-1][1]
        if not callable(found):
            raise ConfigError([f"{key}._target_: {path!r} is a {type(found).__name__}, not something to call"])
        return found

    def foreign(self, conf: Any, *, key: str) -> list[str]:
        """What needs no import to be refused: a config without a target, and targets of packages that nobody named."""
        if errors := untargeted(conf, key=key):
            return errors
        for name, value in conf.items():
            for path, nested in _nested(value, f"{key}.{name}"):
                errors += self.foreign(nested, key=path)
        return errors + self._foreign_package(str(conf["_target_"]), key=key)

    def _foreign_package(self, path: str, *, key: str) -> list[str]:
        package = path.split(".", 1)[0]
        if package in {root.split(".", 1)[0] for root in ROOTS} or self._inside(path):
            return []
        return [self._outside(path, key=key, trust=package)]

    def _outside(self, path: str, *, key: str, trust: str) -> str:
        return (
            f"{key}._target_: {path!r} is outside what may be built ({', '.join(self.roots)}); if you trust it: "
            f"'runtime.allow=[{', '.join([*self.allow, trust])}]', or --allow {trust} for a run that exists"
        )

    def _inside(self, path: str) -> bool:
        return _below(path, self.roots) and not _below(path, EXCEPT)

    def _explain_nested(self, error: InstantiationException, conf: Mapping[str, Any], key: str) -> str:
        """Hydra wraps what a nested target raises, and says where it stands."""
        place = re.search(r"full_key: (\S+)", str(error))
        nested: Any = conf
        for step in place[1].split(".") if place else ():
            nested = nested[int(step)] if isinstance(nested, list) else nested[step]
        where = f"{key}.{place[1]}" if place else key
        return (
            f"{where}: {_explain(error.__cause__ or error, self.locate(nested['_target_'], key=where), nested, where)}"
        )

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
        if errors := untargeted(conf, key=key):
            return errors
        for name, value in conf.items():
            for path, nested in _nested(value, f"{key}.{name}"):
                errors += self.problems(nested, key=path, partial=bool(nested.get("_partial_")))
        try:
            target = self.locate(conf["_target_"], key=key)
        except ConfigError as error:
            return errors + error.errors
        errors += _hub_problems(conf, key=key, roots=self.roots)
        return errors + _binding_problems(target, conf, key, set(context), positional, partial)


def _below(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(root + ".") for root in roots)


def _follow(path: str) -> Iterator[tuple[str, Any]]:
    """Every place on a dotted path with what is there; modules are imported as needed.

    Raises:
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
                    raise ImportError(_not_there(name, found, parent)) from error
                raise ImportError(f"importing {place} raises {type(error).__name__}: {error}") from error
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


def signature_of(target: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):
        return None


# A tensor or nothing; where a number would do as well, as in the rates of an optimiser, lists mean something else.
_TENSOR = re.compile(r"(<class ')?(torch\.)?Tensor('>)?( \| None)?|(typing\.)?Optional\[(torch\.)?Tensor\]")


def _tensors(target: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of numbers as float tensors where a constructor wants a tensor: class weights, for instance."""
    signature = signature_of(target)
    wanted = [
        name
        for name, value in arguments.items()
        if signature is not None
        and name in signature.parameters
        and _TENSOR.fullmatch(str(signature.parameters[name].annotation))
        and isinstance(value, list)
        and value
        and all(isinstance(number, int | float) for number in value)
    ]
    if not wanted:
        return {}
    import torch  # what wants a tensor has imported it already

    return {name: torch.tensor(arguments[name], dtype=torch.float32) for name in wanted}


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
    positional += len(conf.get("_args_") or ())
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
        errors += [f"{key}.{name}: {_untaken(key, name, conf, named)}" for name in given if name not in named]
    if not partial:
        errors += [
            f"{key}.{name}: {what} needs this argument; set it: '{key}.{name}=...'"
            for name, p in named.items()
            if p.default is kinds.empty and name not in given and name not in context
        ]
    return errors


def _untaken(key: str, name: str, conf: Mapping[str, Any], named: Iterable[str]) -> str:
    """The words for an argument that a target does not take."""
    from distill_app.config.origin import left_over

    what = conf["_target_"]
    if origin := left_over(key, name, conf):
        return f"{what} takes no such argument (it takes: {', '.join(named) or 'none'}); {origin}"
    return f"{unknown('argument', name, named)} of {what}"


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


def _explain(error: BaseException, target: Any, conf: Mapping[str, Any], key: str) -> str:
    """An exception of a constructor; an unexpected keyword gets its nearest match."""
    what = conf["_target_"]
    if named := re.match(r"(\w+).*unexpected keyword argument '(\w+)'", str(error)):
        owner, given = named.groups()
        from distill_app.config.origin import left_over

        if given in conf and (origin := left_over(key, given, conf)):
            return f"{what} takes no argument {given!r}; {origin}"
        signature = signature_of(getattr(inspect.getmodule(target), owner, target))
        if signature and not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values()):
            return f"{what}: {unknown('argument', given, [name for name in signature.parameters if name != 'self'])}"
    text = f"{what}: {type(error).__name__}: {error}"
    if isinstance(error, TypeError):  # Python's own words seldom say what it was
        text += f"; given: {', '.join(f'{name}={reprlib.repr(v)}' for name, v in conf.items() if name[:1] != '_')}"
    return text
