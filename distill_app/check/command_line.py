"""Errors of composition, in words: Hydra stops at the first thing that it cannot compose, here all of them are told."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from distill_app.check.flags import Ordered, flag_errors
from distill_app.check.halfway import applied, halfway
from distill_app.check.line import Line, composed, is_interval, split
from distill_app.check.quick import check, read
from distill_app.check.suggest import Suggestions
from distill_app.check.uncomposed import Words, of_a_search
from distill_app.errors import one_line

Look = Callable[[DictConfig], Iterable[str]]  # what is wrong with a config that is composed

_LOOKED = 20  # values of a sweep whose config is looked at; the others need to fit their keys
_MOST = 100  # combinations of values that are composed to find one that does not


def composition_errors(
    error: Exception, arguments: Sequence[str], *, config_dirs: Sequence[str] = (), quick: bool = False
) -> Iterator[str]:
    """Everything that is wrong with a command line, one message each.

    What cannot be composed is taken out, one override at a time, until the rest composes and can be checked. Overrides
    that fit no key or no type are all known from the one composition that failed. Of a sweep all points are looked at.

    Args:
        error: What Hydra raised.
        arguments: The command line.
        config_dirs: Folders with config of the user's own, beside that of the command line.
        quick: Whether to leave out what needs the import of torch.
    """
    line = Line.parse(arguments)
    line = replace(line, config_dirs=(*line.config_dirs, *config_dirs))
    if missing := [folder for folder in line.config_dirs if not Path(folder).is_dir()]:
        yield f"--config-dir: {missing[0]} is not a folder ({Path(missing[0]).absolute()})"
        return
    look = _quickly if quick else check
    yield from _once(_of_a_sweep(error, line, look)) if line.sweep else _of_a_point(error, line, look)


def refused(line: Ordered) -> Iterator[str]:
    """Everything that is wrong with a command line that has flags which there are not, one message each."""
    rest = Line.parse(line.arguments)
    yield from flag_errors(line, rest.suggestions)
    outcome = composed(next(rest.points()) if rest.sweep else rest)
    if isinstance(outcome, Exception):
        yield from composition_errors(outcome, line.arguments, quick=True)
    else:
        yield from read(outcome.cfg)[0]


def search_errors(arguments: Sequence[str]) -> Iterator[str]:
    """What cannot be composed of a search, before its first point: but for the grid, sweepers compose as they go."""
    line, (parsed, _) = Line.parse(arguments), get_args_parser().parse_known_args(list(arguments))
    if parsed.config_path or not (line.sweep and line.chooses("hydra/sweeper")):
        return
    if all(Path(folder).is_dir() for folder in line.config_dirs):
        yield from _once(_of_a_sweep(None, line, _not_at_all))


def _of_a_point(error: Exception | None, line: Line, look: Look) -> Generator[str, None, tuple[Line, Suggestions]]:
    """What is wrong with a single run, or with one point of a sweep.

    Returns:
        What is left of the line, and the config in which to look for keys.
    """
    while error is not None:
        if found := halfway(error):
            known = Suggestions(found.cfg, found.mounts, line.config_dirs)
            for override, each in found.failures:
                yield Words(each, override, line, known).text()
            yield from look(found.cfg)
            wrong = [override for override, _ in found.failures]
            return replace(line, overrides=tuple(each for each in line.overrides if each not in wrong)), known
        culprit = line.culprit(error)
        rest = line if culprit is None else line.without(culprit)
        yield Words(error, culprit, rest).text()
        if culprit is None:
            return line, line.suggestions
        line = rest
        outcome = composed(line)
        error = outcome if isinstance(outcome, Exception) else None
    known = line.suggestions
    yield from look(known.cfg)
    return line, known


def _of_a_sweep(error: Exception | None, line: Line, look: Look) -> Iterator[str]:
    """What is wrong with any point of a sweep; `error` is what its sweeper raised, None where none has begun."""
    told = False
    for text in _of_values(error, line, look):
        told = True
        yield text
    if told or error is None:
        return
    for point in islice(line.points(), _MOST):  # a value that is wrong only beside others
        if isinstance(outcome := composed(point), Exception):
            told = True
            yield from _of_a_point(outcome, point, look)
    if not told:
        yield Words(error, None, line).text()


def _of_values(error: Exception | None, line: Line, look: Look) -> Iterator[str]:
    """What is wrong with the values of a sweep, each beside the first ones of the others."""
    if "Sweeping over Hydra's configuration" in str(error):
        yield one_line(error)
        return
    if isinstance(error, InstantiationException):  # the sweeper itself, or its launcher
        yield Words(error, None, line).text()
    base = next(line.points())
    outcome = composed(base)
    rest, known = yield from _of_a_point(outcome if isinstance(outcome, Exception) else None, base, look)
    if known.mounts.get("hydra/sweeper") == "basic" and not line.chooses("hydra/sweeper"):
        intervals = [split(each) for each in line.overrides if is_interval(each)]
        yield from (f"{key}: {of_a_search(value)}" for key, value in intervals)
    looked = 0
    for place, values in enumerate(line.values):
        for override in values[1:]:
            beside = [each if number != place else override for number, each in enumerate(base.overrides)]
            point = replace(base, overrides=tuple(each for each in beside if each in (*rest.overrides, override)))
            look = look if looked < _LOOKED else _not_at_all
            looked += 1
            if override[0] in "+~" or split(override)[0].split("@")[0] in known.groups:
                outcome = composed(point)
                yield from _of_a_point(outcome if isinstance(outcome, Exception) else None, point, look)
                continue
            cfg = known.cfg.copy()
            failure = applied(override, cfg)
            yield from look(cfg) if failure is None else [Words(failure, override, point, known).text()]


def _not_at_all(cfg: DictConfig) -> Iterable[str]:
    return ()


def _quickly(cfg: DictConfig) -> Iterable[str]:
    return read(cfg)[0]


def _once(texts: Iterable[str]) -> Iterator[str]:
    told = set()
    for text in texts:
        if text not in told:
            told.add(text)
            yield text
