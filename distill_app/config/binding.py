"""Arguments of a config against the signature of what they are for, and what a constructor raises, in words."""

import inspect
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from distill_app.errors import NotInstalled
from distill_app.extras import remedy
from distill_app.words import unadvised, unknown


def signature_of(target: Any) -> inspect.Signature | None:
    """The signature of what is called, None where Python knows none."""
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):
        return None


# A tensor or nothing; where a number would do as well, as in the rates of an optimiser, lists mean something else.
_TENSOR = re.compile(r"(<class ')?(torch\.)?Tensor('>)?( \| None)?|(typing\.)?Optional\[(torch\.)?Tensor\]")


def tensors(target: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
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


def accepts(target: Any, name: str) -> bool:
    """Whether there is a parameter of a name."""
    signature = signature_of(target)
    return signature is not None and name in signature.parameters


def binding_problems(
    target: Any, conf: Mapping[str, Any], key: str, context: set[str], positional: int, partial: bool
) -> list[str]:
    """Arguments that a target does not take or that are no whole numbers, and those that it lacks.

    See `Builder.problems`.
    """
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
    if str(getattr(target, "__module__", "")).startswith("distill_app."):  # annotations of others may be anything
        kinds_of = {name: str(p.annotation) for name, p in named.items() if name in given}
        errors += [
            f"{key}.{name}: {what} wants {wanted}, got {conf[name]!r}"
            for name, annotation in kinds_of.items()
            if (wanted := _no_whole(annotation, conf[name]))
        ]
    if not partial:
        errors += [
            f"{key}.{name}: {what} needs this argument; set it: '{key}.{name}=...'"
            for name, p in named.items()
            if p.default is kinds.empty and name not in given and name not in context
        ]
    return errors


_WHOLE = re.compile(r"(<class ')?int('>)?( \| None)?")
_WHOLES = re.compile(r"(collections\.abc\.|typing\.)?(Sequence|list|tuple)\[int(, \.\.\.)?\]( \| None)?")


def _no_whole(annotation: str, value: Any) -> str:
    """What is wanted in the place of a value of another kind: a whole number or a list of such; empty if it is one."""
    if value is None or isinstance(value, str):  # a reference that is not resolved, or an option: told elsewhere
        return ""
    if _WHOLE.fullmatch(annotation):
        return "" if type(value) is int else "a whole number"
    if _WHOLES.fullmatch(annotation) and not isinstance(value, Mapping):
        many = isinstance(value, list | tuple) and all(type(each) is int for each in value)
        return "" if many else "a list of whole numbers"
    return ""


def _untaken(key: str, name: str, conf: Mapping[str, Any], named: Iterable[str]) -> str:
    """The words for an argument that a target does not take."""
    from distill_app.config.origin import left_over

    what = conf["_target_"]
    if origin := left_over(key, name, conf):
        return f"{what} takes no such argument (it takes: {', '.join(named) or 'none'}); {origin}"
    return f"{unknown('argument', name, named)} of {what}"


def explain(error: BaseException, target: Any, conf: Mapping[str, Any], key: str) -> str:
    """An exception of a constructor; an unexpected keyword gets its nearest match."""
    if isinstance(error, NotInstalled):
        return str(error)
    what = conf["_target_"]
    if named := re.match(r"(\w+).*unexpected keyword argument '(\w+)'", str(error)):
        owner, given = named.groups()
        from distill_app.config.origin import left_over

        if given in conf and (origin := left_over(key, given, conf)):
            return f"{what} takes no argument {given!r}; {origin}"
        signature = signature_of(getattr(inspect.getmodule(target), owner, target))
        if signature and not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values()):
            return f"{what}: {unknown('argument', given, [name for name in signature.parameters if name != 'self'])}"
    text = f"{what}: {type(error).__name__}: {unadvised(error)}{remedy(error)}"
    if isinstance(error, TypeError):  # Python's own words seldom say what it was
        text += f"; given: {', '.join(f'{name}={reprlib.repr(v)}' for name, v in conf.items() if name[:1] != '_')}"
    return text
