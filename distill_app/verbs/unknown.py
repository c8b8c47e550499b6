"""What was meant by a word in the place of a verb that is none."""

import difflib
from collections.abc import Mapping

from distill_app.verbs import VERBS

# What other programs call it -> what is typed here.
_ELSEWHERE = {
    "distill method=kd": ("train", "run", "fit", "start", "launch", "distill", "experiment"),
    "distill -m method=kd,at seed=0,1": ("sweep", "multirun", "search", "tune"),
    "distill dry_run=true": ("check", "validate", "plan", "dry_run", "dry-run", "debug", "doctor"),
    "distill evaluate RUN": ("test", "eval", "val", "score"),
    "distill predict RUN IMAGE": ("infer", "inference"),
    "distill rerun RUN": ("replay", "clone"),
    "distill --version": ("version",),
    "distill --help": ("help",),
}


def unknown_verb(word: str, kinds: Mapping[str, str]) -> str:
    """The words for a verb that does not exist: what was typed, what is typed instead, and which verbs there are.

    Args:
        word: What was typed.
        kinds: What there is a list of -> its config group: `methods` is short for `list methods`.
    """
    typed = next((line for line, words in _ELSEWHERE.items() if word.lower() in words), None)
    if typed is None:
        typed = next((f"distill {kind}" for kind, group in kinds.items() if word.lower() == group), None)
    if typed is None and (near := difflib.get_close_matches(word.lower(), [*VERBS, *kinds], n=1, cutoff=0.6)):
        typed = f"distill {near[0]}"
    hint = f"; did you mean {typed!r}?" if typed else ""
    return f"unknown verb {word!r}{hint} (there are: {', '.join(VERBS)})"
