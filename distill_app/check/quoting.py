"""Values that Hydra's grammar takes for something else: how they are typed so that they are what they look like."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException


def quoted(override: str) -> str | None:
    """The override with its value as one text in quotes, None where it is none or no form of it is read back.

    `teacher.checkpoint=epoch=2.pt` becomes `teacher.checkpoint='epoch=2.pt'`, before the quotes of the shell.
    """
    key, equals, value = override.partition("=")
    if not equals or not value.strip():
        return None
    # Single quotes last: within those of the shell they are hard to read.
    for mark in ('"', "'"):
        # A backslash is one only before a quote.
        line = f"{key}={mark}{value.replace(mark, chr(92) + mark)}{mark}"
        if _text_of(line) == value:
            return line
    return None


def _text_of(line: str) -> str | None:
    """The text that Hydra reads from an override, None where it reads none."""
    try:
        value = OverridesParser.create().parse_override(line).value()
    except (HydraException, ValueError):
        return None
    return value if isinstance(value, str) else None
