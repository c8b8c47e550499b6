"""Keys as they stand above columns: as short as they can be told apart."""

from collections.abc import Iterable

_PLAIN = ("loss", "module", "net")  # of losses.kd.loss.temperature, the name of the term says more


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Key -> its last parts, two that say something at least, and as many as tell it from the others.

    `method.stages.distill.losses.kd.loss.temperature` is `kd.loss.temperature`, `stage.lr` stays as it is.
    """
    keys = list(keys)
    return {key: _short(key, [other for other in keys if other != key]) for key in keys}


def _short(key: str, others: Iterable[str]) -> str:
    parts = key.split(".")
    for count in range(1, len(parts)):
        ending = parts[-count:]
        name = ".".join(ending)
        telling = [part for part in ending if part not in _PLAIN]
        if len(telling) >= 2 and not any(other == name or other.endswith(f".{name}") for other in others):
            return name
    return key
