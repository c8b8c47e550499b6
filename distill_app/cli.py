"""The command line: a verb about runs that exist, or else Hydra overrides of a new one."""

import os
import sys
import traceback
from collections.abc import Sequence

from distill_app.runs.channel import Console, one_channel
from distill_app.runs.console import outlasted

VERBS = ("resume", "evaluate", "export", "report", "cache", "methods")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `distill` and of `python -m distill_app`.

    Exit codes: 0 done; 2 something is wrong with what was typed or configured; 1 the run failed; 130 interrupted.
    HYDRA_FULL_ERROR=1 shows tracebacks.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Read by OpenMP when torch is imported: threads that wait sleep, so that a busy machine slows them and no more.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra then raises instead of printing and exiting; what went wrong is told here, in one place.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    is_verb = bool(arguments) and arguments[0].isidentifier()
    if not is_verb or any(word.startswith("--allow") for word in arguments):
        # For packages of your own in this folder; not where only the config of a run that exists could name them.
        sys.path.append(os.getcwd())
    with outlasted(), one_channel(Console()):  # `distill --help | head`
        try:
            code = _verb(arguments) if is_verb else _experiment(arguments, full=full)
        except KeyboardInterrupt as error:
            print("; ".join(["interrupted", *getattr(error, "__notes__", [])]), file=sys.stderr)
            code = 130
        except Exception as error:
            code = _tell(error, full=full)
        finally:
            if not full:
                del os.environ["HYDRA_FULL_ERROR"]
    sys.exit(code)


def _verb(arguments: list[str]) -> int:
    verb, *rest = arguments
    if verb == "report":
        from distill_app.verbs.report import main as report

        return int(report(rest) or 0)
    if verb == "cache":
        from distill_app.verbs.cache import main as cache

        return cache(rest)
    if verb == "methods":
        import argparse

        from distill_app.verbs import methods

        what = "Lists the methods, or says what one does: its stages, its losses and what to know."
        parser = argparse.ArgumentParser(prog="distill methods", description=what)
        methods.add(parser)
        return methods.run(parser.parse_args(rest))
    if verb in VERBS:
        from distill_app.verbs.stored import run_verb

        return run_verb(verb, rest)
    from distill_app.words import unknown

    print(f"error: {unknown('verb', verb, VERBS)}; overrides have the form key=value", file=sys.stderr)
    return 2


def _experiment(arguments: list[str], *, full: bool) -> int:
    from distill_app.app import start
    from distill_app.errors import ConfigError, is_of_composition
    from distill_app.words import Listing

    listing = Listing()
    try:
        failures = start(arguments, show=listing.add, full=full)
    except Exception as error:
        if full or not is_of_composition(error):
            raise
        from distill_app.check.command_line import composition_errors

        for text in composition_errors(error, arguments):
            listing.add(text)
        return 2
    codes = []
    for failure in failures:
        if failure.error is None:
            codes.append(failure.exit_code)
        elif isinstance(failure.error, ConfigError) and not full:
            for text in failure.error.errors:
                listing.add(text)
            codes.append(2)
        else:
            codes.append(_tell(failure.error, full=full))
    return max(codes, default=0)


def _tell(error: Exception, *, full: bool) -> int:
    """Says what went wrong and returns the exit code."""
    from distill_app.errors import explain

    text, code = explain(error)
    if full or text is None:
        traceback.print_exception(error)
    else:
        print(text, file=sys.stderr)
    return code
