"""The command line: a verb about runs that exist, or else Hydra overrides of a new one."""

import os
import sys
from collections.abc import Sequence

VERBS = ("resume", "evaluate", "export", "report")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `distill` and of `python -m distill_app`.

    Exit codes: 0 done; 2 something is wrong with what was typed or configured; 1 the run failed; 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Hydra then raises instead of printing and exiting, and what went wrong is told below, in one place.
    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        code = _dispatch(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except Exception as error:
        from distill_app.errors import explain

        if traceback_wanted:
            raise
        text, code = explain(error, arguments)
        if text is None:
            raise
        print(text, file=sys.stderr)
    sys.exit(code)


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in VERBS:
        if arguments[0] == "report":
            from distill_app.report import main as report

            return int(report(arguments[1:]) or 0)
        from distill_app.verbs import run_verb

        return run_verb(arguments[0], arguments[1:])
    if arguments and _looks_like_a_verb(arguments[0]):
        from distill_app.wiring import unknown

        print(
            f"error: {unknown('verb', arguments[0], VERBS)}; overrides have the form key=value",
            file=sys.stderr,
        )
        return 2
    from distill_app.app import main as hydra_main

    sys.argv = [sys.argv[0], *arguments]
    hydra_main()
    return 0


def _looks_like_a_verb(argument: str) -> bool:
    return argument.isidentifier()


if __name__ == "__main__":
    main()
