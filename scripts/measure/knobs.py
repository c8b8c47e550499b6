"""What can be turned in every method: the space in which its settings are looked for.

Every method has the same knobs as far as it has what they turn, as factors on the values of its file, so that 1 is the
published setting:

- `lr`: on the rates of the stages that train the student; a rate of a method's own, which is of another recipe, may go
  further than the recipe's.
- `strength`: on the weights of all terms that are not of labels, in stages that have both kinds. In a stage without
  labels it would be another rate.
- `temperature`: on the temperatures of the terms.
- `first`: no factor, but the share of the epochs that the stages before the last one have together; a half, or two
  thirds of three, by default.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

_LABELS = ("torch.nn.CrossEntropyLoss", "torch.nn.BCEWithLogitsLoss", "distill_app.losses.Own")
_LABELS += ("distill_app.losses.PixelCrossEntropy",)
# Name: lowest and highest value. Sampled evenly in their logarithms, but for the share.
_RANGES = {
    "lr": (0.1, 3.0),
    "own_lr": (0.1, 100.0),
    "strength": (0.003, 10.0),
    "temperature": (0.25, 4.0),
    "first": (0.1, 0.8),
}


@dataclass(frozen=True)
class Knob:
    """One dimension of the space.

    Attributes:
        low: The least value.
        high: The greatest.
        default: What the method's file says.
        log: Whether it is drawn evenly in its logarithm.
    """

    low: float
    high: float
    default: float = 1.0
    log: bool = True


@dataclass(frozen=True)
class Space:
    """The knobs of a method, and what they turn.

    Attributes:
        rates: Stage -> learning rate, of the stages that train the student.
        own: Whether a stage has a rate of its own.
        weights: Key of a weight -> its value.
        temperatures: Key of a temperature -> its value.
        budget: Epochs of training the student, over all its stages together.
    """

    rates: dict[str, float]
    own: bool
    weights: dict[str, float]
    temperatures: dict[str, float]
    budget: int

    @classmethod
    def of(cls, cfg: DictConfig, *, budget: int) -> "Space":
        """The space of a composed config's method."""
        trained = trained_stages(cfg)
        stages = {name: cfg.method.stages[name] for name in trained}
        weights: dict[str, float] = {}
        temperatures: dict[str, float] = {}
        for name, stage in stages.items():
            terms = {key: term for key, term in stage.losses.items() if term is not None}
            taught = {key: term for key, term in terms.items() if not _of_labels(term)}
            place = f"method.stages.{name}.losses"
            if len(taught) < len(terms):
                weights |= {
                    f"{place}.{key}.{path}": value for key, term in taught.items() for path, value in _weight(term)
                }
            temperatures |= {
                f"{place}.{key}.loss.temperature": float(term.loss.temperature)
                for key, term in taught.items()
                if _number(OmegaConf.to_container(term.loss, resolve=True).get("temperature"))  # type: ignore[union-attr]
            }
        rates = {name: float(stage.lr) for name, stage in stages.items()}
        own = any(rate != float(cfg.stage.lr) for rate in rates.values())
        return cls(rates, own, weights, temperatures, budget)

    def knobs(self) -> dict[str, Knob]:
        """Name -> knob."""
        found = {"lr": Knob(*_RANGES["own_lr" if self.own else "lr"])}
        if self.weights:
            found["strength"] = Knob(*_RANGES["strength"])
        if self.temperatures:
            found["temperature"] = Knob(*_RANGES["temperature"])
        if (count := len(self.rates)) > 1:
            found["first"] = Knob(*_RANGES["first"], default=(count - 1) / count, log=False)
        return found

    def overrides(self, values: Mapping[str, float]) -> list[str]:
        """What to type for a point of the space; the epochs add up to the budget."""
        count = len(self.rates)
        before = values.get("first", (count - 1) / count) / max(1, count - 1)
        epochs = [max(1, round(self.budget * before))] * (count - 1)
        epochs.append(max(1, self.budget - sum(epochs)))
        words = [f"method.stages.{stage}.epochs={number}" for stage, number in zip(self.rates, epochs, strict=True)]
        for name, turned in (
            ("lr", {f"method.stages.{stage}.lr": rate for stage, rate in self.rates.items()}),
            ("strength", self.weights),
            ("temperature", self.temperatures),
        ):
            if (factor := values.get(name, 1.0)) != 1.0:
                words += [f"{key}={value * factor:.4g}" for key, value in turned.items()]
        return words


def trained_network(cfg: DictConfig) -> str:
    """The network that a method's last stage trains as the student: what is deployed and counts."""
    return str(cfg.method.stages[cfg.method.schedule[-1]].roles.get("student", "student"))


def trained_stages(cfg: DictConfig) -> list[str]:
    """The stages that count against the budget; one in which another network plays the student does not."""
    stages = {name: cfg.method.stages[name] for name in cfg.method.schedule}
    return [
        name
        for name, stage in stages.items()
        if (stage.train is None or "student" in stage.train)
        and stage.roles.get("student", "student") == trained_network(cfg)
    ]


def _of_labels(term: DictConfig) -> bool:
    return term.loss.get("_target_") in _LABELS


def _weight(term: DictConfig) -> Sequence[tuple[str, float]]:
    """Where the number of a term's weight stands, and what it is; a schedule has it as `value`."""
    weight: Any = OmegaConf.to_container(term, resolve=True)["weight"]  # type: ignore[index, call-overload]
    if isinstance(weight, Mapping):
        return [("weight.value", float(weight["value"]))] if _number(weight.get("value")) else []
    return [("weight", 1.0 if weight is None else float(weight))]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
