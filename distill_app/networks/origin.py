"""Where the weights that a network starts with came from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Where the weights of one network came from, as log, plan and summary tell it."""

    source: str = "random initialisation"
    loaded: bool = False
    notes: tuple[str, ...] = ()  # what was chosen, left out or converted
    random: tuple[str, ...] = ()  # parameters of a loaded network that stayed as they were drawn
    head: str = ""  # the path of the classifier
    warning: str = ""  # what the user did not get

    def __str__(self) -> str:
        return ", ".join([self.source, *self.notes])
