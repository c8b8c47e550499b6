"""`distill published`: what papers report for a benchmark, and what to type to measure the same."""

import argparse
from collections.abc import Iterable, Iterator

from distill_app.config.groups import options_of
from distill_app.errors import UsageError
from distill_app.report.published import Benchmark, Pair, Row, benchmarks, lines_of, published
from distill_app.runs.report import summary_table
from distill_app.words import unknown


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("pair", nargs="?", help="a pair of networks, as pair=... names it: all methods, with sources")
    parser.add_argument("method", nargs="?", help="one method of this program, as method=... names it")
    parser.add_argument("--benchmark", default="cifar100", help=f"one of: {', '.join(benchmarks())}")


def run(arguments: argparse.Namespace) -> int:
    """Prints the pairs, the methods of one, or one method of one pair.

    Raises:
        UsageError: There is no such benchmark, pair, or method.
    """
    if arguments.benchmark not in benchmarks():
        raise UsageError(f"--benchmark: {unknown('benchmark', arguments.benchmark, benchmarks())}")
    known = published(arguments.benchmark)
    if arguments.pair is None:
        print(listed(known))
        return 0
    if arguments.pair not in known.pairs:
        raise UsageError(unknown("pair", arguments.pair, known.pairs))
    pair, method = known.pairs[arguments.pair], arguments.method
    names = sorted({row.method for pair in known.pairs.values() for row in pair.rows if row.method})
    if method is not None and method not in (*names, *options_of("method")):
        raise UsageError(unknown("method", method, names))
    print("\n".join(described(known, pair, method)))
    return 0


def listed(known: Benchmark) -> str:
    """The pairs, those first that most papers report."""
    rows = [
        {
            "pair": pair.name,
            "core": "core" if pair.core else "",
            "teacher": pair.teacher_row.text or None,
            "alone": pair.student_row.text or None,
            "kd": " / ".join(row.text for row in pair.of("kd")) or None,
            "rows": len(pair.rows),
        }
        for pair in sorted(known.pairs.values(), key=lambda pair: not pair.core)
    ]
    table = summary_table(rows, ("pair", "core", "teacher", "alone", "kd", "rows"))
    return f"{known.name}, published top-1\n\n{table}\n\nof one: distill published {rows[0]['pair']}"


def described(known: Benchmark, pair: Pair, method: str | None) -> Iterator[str]:
    """The rows of a pair, or of one method of it, with commands; then their sources and recipes."""
    rows = list(pair.rows) if method is None else pair.of(method)
    above = [pair.teacher_row, *([] if method == "ce" else [pair.student_row])]
    yield f"{known.name}, published top-1, {pair.teacher} to {pair.student}"
    for row in [*above, *rows]:
        yield from (f"  {line}" for line in lines_of(row, known))
    if method is not None and not rows:
        yield f"  {method}: nothing for this pair"
    yield "to measure it:"
    methods = [method] if method else dict.fromkeys(row.method for row in rows if row.method)
    yield from (f"  distill experiment=cifar100/benchmark pair={pair.name} method={name}" for name in methods)
    yield from _origins(known, [*above, *rows])


def _origins(known: Benchmark, rows: Iterable[Row]) -> Iterator[str]:
    used = [(row, source) for row in rows for value in row.values for source in value.sources]
    yield "sources:"
    for key in dict.fromkeys(source for _, source in used):
        source = known.sources[key]
        more = [f"mean of {source.runs} runs"] if source.runs else []
        yield f"  {key}: {'; '.join([source.where, source.table, source.recipe, *more, *filter(None, [source.note])])}"
    yield "recipes:"
    for key in dict.fromkeys(known.recipe_of(row, source) for row, source in used):
        of = ", ".join(label for label, recipe in known.exceptions.items() if recipe == key)
        yield f"  {key}{f' ({of})' if of else ''}: {known.recipes[key]}"
