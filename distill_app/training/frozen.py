"""What networks that are not trained say of a batch."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from distill_app.networks.hooks import TappedModel


class OnDemand(Mapping[str, TappedModel]):
    """Frozen networks by name, each made ready when it is first asked for: what the cache gives need not run."""

    def __init__(self, names: Iterable[str], make: Callable[[str], TappedModel]):
        self._names, self._make = list(names), make
        self._made: dict[str, TappedModel] = {}

    def __getitem__(self, name: str) -> TappedModel:
        if name not in self._made:
            if name not in self._names:
                raise KeyError(name)
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
