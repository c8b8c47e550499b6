"""`distill completion SHELL`: the script that completes verbs, groups, options and keys; and what it asks for.

The scripts call `distill completion words -- LINE`, at every press of a key: neither torch nor Hydra is imported.
"""

import argparse
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import fields, is_dataclass
from importlib import import_module
from io import StringIO
from typing import Any, get_type_hints

from distill_app.config.groups import default_options, groups, merged_content, mounts, options_of

# The word that is being typed goes back to the last blank: bash itself would cut it at = and @.
_BASH = r"""# bash: put into ~/.bashrc:  eval "$(distill completion bash)"
_distill() {
    local line="${COMP_LINE:0:COMP_POINT}" words word cut
    read -r -a words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    word="${words[${#words[@]}-1]}"
    cut="${word%"${word##*[=@:,]}"}"
    local IFS=$'\n'
    COMPREPLY=($(distill completion words -- "${words[@]:1}" 2> /dev/null))
    [[ ${#COMPREPLY[@]} -eq 0 ]] && { COMPREPLY=($(compgen -f -- "${word##*=}")); cut=""; }
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" != *[=.] ]] && compopt +o nospace
    COMPREPLY=("${COMPREPLY[@]#"$cut"}")
}
complete -o nospace -F _distill distill
"""
_ZSH = r"""#compdef distill
# zsh: put into ~/.zshrc, behind compinit:  eval "$(distill completion zsh)"
_distill() {
    local -a found whole open
    found=("${(@f)$(distill completion words -- "${(@)words[2,CURRENT]}" 2> /dev/null)}")
    found=("${(@)found:#}")
    if (( ! ${#found} )); then _files; return; fi
    open=("${(@M)found:#*[=.]}")
    whole=("${(@)found:#*[=.]}")
    (( ${#open} )) && compadd -Q -S '' -- "${open[@]}"
    (( ${#whole} )) && compadd -Q -- "${whole[@]}"
}
compdef _distill distill
"""
_FISH = r"""# fish: distill completion fish > ~/.config/fish/completions/distill.fish
function __distill_words
    set -l words (commandline -opc) (commandline -ct)
    distill completion words -- $words[2..] 2> /dev/null
end
complete -c distill -f -a '(__distill_words)'
complete -c distill -n 'test -z "$(__distill_words)"' -F
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
FLAGS = ("--help", "--version", "--multirun", "--cfg", "--config-dir", "--info")
_INNER = ("optimizer@stage.optimizer", "scheduler@stage.scheduler")  # that recipes mount
_EXPERIMENTS = ("rerun", "continue", "resume", "show")  # verbs that take overrides, too


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("shell", choices=(*SCRIPTS, "words"), help="the shell; `words` is what its script asks for")
    parser.add_argument("line", nargs="*", help=argparse.SUPPRESS)
    parser.epilog = (
        'bash: eval "$(distill completion bash)" in ~/.bashrc; docs/deploy.md has the lines for zsh and fish'
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the script, or the words that fit."""
    print(SCRIPTS[arguments.shell] if arguments.shell in SCRIPTS else "\n".join(completions(arguments.line)), end="\n")
    return 0


def completions(line: Sequence[str]) -> list[str]:
    """What the last word of a line may become.

    Args:
        line: The words behind `distill`, the last one as far as it is typed.
    """
    *before, word = list(line) or [""]
    from distill_app.verbs import VERBS

    if not before:
        found = [*VERBS, *FLAGS, *_overrides(word, before)]
    elif before[0] in VERBS:
        found = list(_of_verb(before[0], before[1:], word))
    else:
        found = [*(FLAGS if word.startswith("-") else ()), *_overrides(word, before)]
    return sorted({each for each in found if each.startswith(word) and each != word})


def _of_verb(verb: str, before: Sequence[str], word: str) -> Iterator[str]:
    """The options of a verb, the choices of what it takes, and keys where it takes overrides."""
    if verb == "list":
        from distill_app.verbs.list import kinds_of

        yield from kinds_of()
    parser = argparse.ArgumentParser(add_help=True)
    with suppress(ImportError), redirect_stderr(StringIO()):
        import_module(f"distill_app.verbs.{verb}").add(parser)
    asked = next((each for each in parser._actions if before and before[-1] in each.option_strings), None)
    if asked is not None and asked.nargs != 0:
        yield from _choices(asked)
        return
    for action in parser._actions:
        yield from action.option_strings if word.startswith("-") else ()
        yield from () if action.option_strings else _choices(action)
    if verb in _EXPERIMENTS and ("=" in word or not word.startswith(("-", ".", "/"))):
        yield from _overrides(word, before)


def _choices(action: argparse.Action) -> Iterator[str]:
    yield from map(str, action.choices or getattr(action, "words", ()) or ())


def _overrides(word: str, before: Sequence[str]) -> Iterator[str]:
    """Groups with their options, and keys with the values that their type has."""
    sign = word[: len(word) - len(word.lstrip("+~"))]
    bare = word[len(sign) :]
    for found in _plain_overrides(bare, before):
        yield sign + found


def _plain_overrides(word: str, before: Sequence[str]) -> Iterator[str]:
    name, equals, value = word.partition("=")
    if equals:
        first = value[: value.rfind(",") + 1]  # of a sweep: method=kd,at
        yield from (f"{name}={first}{each}" for each in _values(name))
        return
    if "." not in word:
        yield from (f"{mount}=" for mount in (*mounts(), *_INNER))
    yield from _keys(word, _chosen(before))


def _values(name: str) -> list[str]:
    group, _, _ = name.partition("@")
    if group in groups():
        return options_of(group)
    section: Any = _typed()
    for step in name.split("."):
        section = section.get(step) if isinstance(section, Mapping) else None
    return ["true", "false"] if section is bool else []


def _chosen(before: Iterable[str]) -> dict[str, str]:
    """The options of a line: those that it chooses, and those that stand in config.yaml."""
    known, chosen = groups(), default_options()
    for override in before:
        mount, equals, option = override.lstrip("+~").partition("=")
        if equals and mount.partition("@")[0] in known:
            chosen[mount] = option.partition(",")[0]
    return chosen


def _keys(word: str, chosen: Mapping[str, str]) -> Iterator[str]:
    """Keys one step further than what is typed: `stage.` -> `stage.lr=`, `stage.optimizer.`."""
    tree = _typed()
    for mount, option in chosen.items():
        group, _, place = mount.partition("@")
        if group not in ("experiment", "debug"):
            _grow(tree, {place or group: merged_content(group, option)})
    prefix, _, _ = word.rpartition(".")
    section: Any = tree
    for step in prefix.split(".") if prefix else ():
        section = section.get(step) if isinstance(section, Mapping) else None
    if re.fullmatch(r"(method|prelude)\.stages\.[^.]+", prefix) and isinstance(section, Mapping):
        from distill_app.config.schema import StageConf

        section = {**_typed(StageConf), **section}
    for name, value in section.items() if isinstance(section, Mapping) else ():
        key = f"{prefix}.{name}" if prefix else str(name)
        yield f"{key}." if isinstance(value, Mapping) and value else f"{key}="


def _typed(kind: Any = None) -> dict[str, Any]:
    """What the schema types: key -> its type, or the keys below it."""
    if kind is None:
        from distill_app.config.schema import AppConf as kind
    hints, found = get_type_hints(kind), {}
    for field in fields(kind):
        hint = hints[field.name]
        found[field.name] = _typed(hint) if is_dataclass(hint) else hint
    return found


def _grow(tree: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping):
            below = tree.get(key)
            tree[key] = below = below if isinstance(below, dict) else {}
            _grow(below, value)
        else:
            tree.setdefault(key, value)
