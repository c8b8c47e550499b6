"""What stands in code blocks of the pages: commands to run, and files that they speak of."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What is no command of the program: checked elsewhere, or about getting it.
_OTHERS = re.compile(r"^(git|make|pip|cd|\.|python|torchrun|tensorboard|from|import|huggingface-cli|hf)\b|^\. ")


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The code blocks of a page with the language that stands above each; indented ones have none."""
    text = page.read_text(encoding="utf-8")
    fenced = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    yield from ((found[1], found[2]) for found in fenced.finditer(text))
    for found in re.finditer(r"(?:^|\n\n)((?: {4}[^\n]*\n(?:\n(?= {4}))?)+)", fenced.sub("", text)):
        yield "", re.sub(r"^ {4}", "", found[1], flags=re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The commands of a page in their order, as words behind `distill`, without comments."""
    found = []
    for language, block in blocks(page):
        if language not in ("", "bash", "sh", "console"):
            continue
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            for part in _parts(line):
                if part[:1] == ["distill"]:
                    found.append([word for word in part[1:] if word != "..."])
    return found


def _parts(line: str) -> Iterator[list[str]]:
    """The commands of a line; what no shell can read is none."""
    try:
        words = shlex.split(line.removeprefix("$ "), comments=True)
    except ValueError:
        return
    part: list[str] = []
    for word in [*words, "&&"]:
        if word in ("&&", ";", "|"):
            yield part
            part = []
        else:
            part.append(word)


def strangers(page: Path) -> list[str]:
    """Lines that speak of the program and are not run: a word before it, a prompt, a typing error."""
    lines = [line for language, block in blocks(page) if language in ("", "bash", "sh") for line in block.splitlines()]
    return [
        line
        for line in lines
        if re.search(r"(^|\s)distill\s", line.split("#")[0])
        and not line.startswith("distill ")
        and not _OTHERS.match(line)
    ]


def block_after(page: str, language: str, words: str) -> str:
    """The first block in a language that holds some words."""
    return next(block for kind, block in blocks(ROOT / "docs" / page) if kind == language and words in block)
