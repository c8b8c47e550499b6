"""The command line: a verb about runs that exist, or else Hydra overrides of a new one."""

import os
import sys
import traceback
from collections.abc import Sequence

from distill_app.runs.channel import Console, one_channel
from distill_app.runs.console import outlasted


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `distill` and of `python -m distill_app`.

    Exit codes: 0 done; 2 something is wrong with what was typed or configured; 1 the run failed; 130 interrupted, or
    143 and 129 by SIGTERM and SIGHUP.
    HYDRA_FULL_ERROR=1 shows tracebacks.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Read by OpenMP when torch is imported: threads that wait sleep, so that a busy machine slows them and no more.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra then raises instead of printing and exiting; what went wrong is told here, in one place.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # A verb may have a hyphen within, as options have one in front.
    is_verb = bool(arguments) and arguments[0][:1] != "-" and arguments[0].replace("-", "_").isidentifier()
    if not is_verb or any(word.startswith(("--allow", "runtime.allow=")) for word in arguments):
        # For packages of your own in this folder; not where only the config of a run that exists could name them.
        sys.path.append(os.getcwd())
    with outlasted(), one_channel(Console()):  # `distill --help | head`
        try:
            code = _verb(arguments, full=full) if is_verb else _experiment(arguments, full=full)
        except KeyboardInterrupt as error:
            name = f"interrupted by {error}" if str(error) else "interrupted"
            print("; ".join([name, *getattr(error, "__notes__", [])]), file=sys.stderr)
            code = getattr(error, "exit_code", 130)
        except Exception as error:
            code = _tell(error, full=full)
        finally:
            if not full:
                del os.environ["HYDRA_FULL_ERROR"]
    sys.exit(code)


def _verb(arguments: list[str], *, full: bool) -> int:
    from distill_app.verbs import VERBS, call

    verb, *rest = arguments
    if verb not in VERBS:
        from distill_app.verbs.list import kinds_of

        kinds = kinds_of()
        if verb not in kinds:
            from distill_app.verbs.unknown import unknown_verb

            print(f"error: {unknown_verb(verb, kinds)}; overrides have the form key=value", file=sys.stderr)
            return 2
        verb, rest = "list", arguments  # distill methods
    outcome = call(verb, rest)
    return _experiment(outcome, full=full) if isinstance(outcome, list) else int(outcome or 0)


def _experiment(arguments: list[str], *, full: bool) -> int:
    if "--version" in arguments:
        print(_version())
        return 0
    from omegaconf import OmegaConf

    from distill_app import verbs
    from distill_app.app import start
    from distill_app.check.command_line import composition_errors, refused, search_errors
    from distill_app.check.flags import ordered, stored_run_errors
    from distill_app.errors import ConfigError, UsageError, is_of_composition
    from distill_app.words import Listing

    OmegaConf.register_new_resolver("verbs", verbs.listing, replace=True)  # for --help
    listing, line = Listing(), ordered(arguments)
    arguments = line.arguments
    if behind := [word for word in line.overrides if word in verbs.VERBS]:
        raise UsageError(f"a verb comes first: distill {behind[0]} ...")
    for text in refused(line) if line.wrong else (*stored_run_errors(arguments), *search_errors(arguments)):
        listing.add(text)
    if listing.texts:
        return 2
    try:
        failures = start(arguments, show=listing.add, full=full)
    except Exception as error:
        if full or not is_of_composition(error):
            raise
        for text in composition_errors(error, arguments, quick=True):
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


def _version() -> str:
    """This program's version, and those of what it stands on, without importing them."""
    from importlib.metadata import PackageNotFoundError, version

    from distill_app import __version__

    found = []
    for package in ("torch", "torchvision", "hydra-core", "omegaconf"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} missing")
    return f"distill-app {__version__} ({', '.join(found)}, Python {sys.version.split()[0]})"


def _tell(error: Exception, *, full: bool) -> int:
    """Says what went wrong and returns the exit code."""
    from distill_app.errors import explain

    text, code = explain(error)
    if full or text is None:
        traceback.print_exception(error)
    else:
        print(text, file=sys.stderr)
    return code
