"""The networks of an experiment: building them from config, with their weights, and reading their taps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from distill_app.config.build import Builder
from distill_app.config.inputs import channels_of
from distill_app.config.plan import model_key
from distill_app.config.schema import AppConf, ModelConf
from distill_app.config.start import asking_argument, chain_of, start_of
from distill_app.errors import ConfigError, SettingError, TapError
from distill_app.networks.constructed import constructed, download_problem, one_attempt, watched
from distill_app.networks.hooks import TappedModel
from distill_app.networks.inputs import OwnInput, own_input_of
from distill_app.networks.layout import layout_of
from distill_app.networks.origin import Origin
from distill_app.networks.taps import Tap, resolve
from distill_app.networks.weights import load_weights
from distill_app.seeds import seeded


@dataclass
class Network:
    """A network, the paths of its taps, and where its weights came from."""

    name: str
    module: nn.Module
    taps: dict[str, str]
    origin: Origin = field(default_factory=Origin)
    note: str = ""  # on how it runs, for the plan
    found: bool = False  # whether nobody wrote all of its taps
    input: OwnInput | None = None  # what is done to images in front of it, by a hook of the module

    @property
    def loaded(self) -> bool:
        """Whether its weights were loaded, from wherever."""
        return self.origin.loaded

    def paths(self, wanted: Iterable[str]) -> dict[str, str]:
        """Where these taps are read; `output` is the whole network's."""
        known = {"output": "", **self.taps}
        return {tap: known[tap] for tap in wanted}

    def part(self, path: str) -> nn.Module:
        """The module at a path, or else the one that a tap of this name reads; `output` is the whole network.

        Raises:
            TapError: Neither is there.
        """
        try:
            return resolve(self.module, path)
        except TapError as error:
            if path in (known := {"output": "", **self.taps}):
                return resolve(self.module, Tap.parse(path, known[path]).path)
            raise TapError(f"{error}; taps: {', '.join(self.taps)}") from None

    def tapped(
        self,
        wanted: Iterable[str],
        *,
        stage: str,
        redesign: Sequence[str | nn.Module] | None = None,
        module: nn.Module | None = None,
    ) -> TappedModel:
        """Installs hooks for these taps.

        Args:
            wanted: Names of taps.
            stage: For messages.
            redesign: What runs instead of the whole network, as `redesigned` takes it.
            module: Another form of the network.
        """
        owner, module = f"{self.name} in stage {stage!r}", self.module if module is None else module
        runs = None if redesign is None else redesigned(module, redesign, taps=self.taps, owner=owner)
        if runs is not None and self.input is not None:
            self.input.before(runs)
        return TappedModel(module, self.paths(wanted), owner=owner, runs=runs)


class _Nothing(nn.Module):
    """What an empty redesign runs."""

    def __init__(self, owner: str):
        super().__init__()
        self.owner = owner

    def forward(self, *args: Any) -> None:
        raise TapError(
            f"{self.owner} is redesigned to nothing and has to come from the cache, which lacks rows of this batch; "
            f"fill it first with a run that has no redesign"
        )


def redesigned(
    module: nn.Module, entries: Sequence[str | nn.Module], *, owner: str, taps: Mapping[str, str] | None = None
) -> nn.Module:
    """A sequence of some of a network's modules; they stay the network's own, with its weights.

    Args:
        module: The network.
        entries: In the order in which they run: paths or taps in the network, or modules without parameters of their
            own (a Flatten between a pooling and a linear layer, which networks do in code). Empty: nothing runs.
        taps: The network's, for entries that are no paths.
        owner: What the network is called in messages.

    Raises:
        TapError: A path that does not exist.
        SettingError: A module that brings parameters, buffers or a mode.
    """
    if not entries:
        return _Nothing(owner)
    parts = []
    for entry in entries:
        if isinstance(entry, nn.Module) and (entry.state_dict() or isinstance(entry, _DropoutNd)):
            raise SettingError(
                f"the redesign of {owner} brings in a {type(entry).__name__}, which has parameters or a mode; only "
                f"modules without may stand beside those of the network; what is trained beside it is an adapter"
            )
        parts.append(entry if isinstance(entry, nn.Module) else Network(owner, module, dict(taps or {})).part(entry))
    return nn.Sequential(*parts)


def build_network(
    app: AppConf, name: str, *, builder: Builder, device: torch.device | str, drawn_as: str | None = None
) -> Network:
    """Builds one network.

    Its random numbers are those of its name, so that two students of one architecture differ from the start, or those
    of the network that it `starts_like`, or of the name `drawn_as`.

    Raises:
        ConfigError: It cannot be built.
        SettingError: Its weights cannot be loaded.
    """
    key, conf, first = model_key(app, name), start_of(app, name), chain_of(app, name)[-1]
    with seeded(app.seed, f"network {drawn_as or first}"), watched() as loadings, one_attempt(conf.net):
        module = built(builder, conf, key, channels=channels_of(conf, app.dataset))
    origin = constructed(module, loadings, conf=conf.net, taps=conf.taps)
    if first != name:
        origin = replace(origin, notes=(*origin.notes, f"as {first} starts"))
    origin = load_weights(module, conf, key=key, built=origin)
    # Convolutions with weights in this layout give maps in it, whatever the layout of the images.
    layout, note = layout_of(module, channels_last=app.runtime.channels_last, device=device)
    module = module.to(device).to(memory_format=layout)
    own = own_input_of(conf.input, app.dataset, device=device)
    if own is not None:
        own.before(module)
    return Network(name, module, conf.taps, origin, note=note, found=bool(conf.find_taps), input=own)


def channel_arguments(channels: int) -> dict[str, int]:
    """What tells the constructor of a network how many channels images have, where it has such a parameter."""
    return dict.fromkeys(("in_channels", "in_chans"), channels) if channels != 3 else {}


def built(builder: Builder, conf: ModelConf, key: str, *, channels: int) -> nn.Module:
    """The network as its constructor makes it.

    Args:
        builder: Builds it.
        conf: Its config.
        key: Its config key.
        channels: Of the images that it gets.

    Raises:
        ConfigError: It cannot be built; one message where the constructor cannot fetch weights that it was asked for.
    """
    try:
        names, net = ("in_channels", "in_chans"), conf.net
        if conf.input.channels is not None:  # and not those of the data, which net may refer to
            net = {name: channels if name in names else value for name, value in net.items()}
        return builder.build(net, key=f"{key}.net", **channel_arguments(channels))
    except ConfigError as error:
        asked, problem = asking_argument(conf.net), download_problem(error.__cause__)
        if asked and "num_classes" in str(error.__cause__):  # torchvision takes its own number of classes only
            instead = f"{key}.{asked} in the place of {key}.net.{asked} loads all but the classifier"
            raise ConfigError([f"{text.rstrip('.')}; {instead}" for text in error.errors]) from error
        if not (asked and problem):
            raise
        raise ConfigError(
            [
                f"{key}.net: {conf.net['_target_']} cannot get the weights that {asked} asks for ({problem}); take "
                f"this out and set {key}.checkpoint=FILE to weights that are here, or start once with a network"
            ]
        ) from error


def fitting_weights(network: Network, source: Network) -> dict[str, Tensor]:
    """The weights of the source whose name and shape the network has too.

    Raises:
        SettingError: Not one kernel or matrix among them: norms and biases agree by chance.
    """
    own, other = network.module.state_dict(), source.module.state_dict()
    fitting = {name: value for name, value in other.items() if name in own and own[name].shape == value.shape}
    if not any(value.dim() > 1 for value in fitting.values()):
        raise SettingError(
            f"{network.name} cannot start from {source.name}: no weight agrees in name and shape. Both need one "
            f"architecture, but for parts of it: for instance model@student=teacher_bottleneck"
        )
    return fitting


def start_from(network: Network, source: Network) -> str:
    """Copies every weight whose name and shape agree; says how many did not.

    Raises:
        SettingError: None agrees.
    """
    own, fitting = network.module.state_dict(), fitting_weights(network, source)
    network.module.load_state_dict(fitting, strict=False)
    left = sorted(set(own) - set(fitting))
    kept = f"; kept its own {', '.join(left[:4])}{' ...' if len(left) > 4 else ''}" if left else ""
    return f"{network.name} starts from {source.name}: {len(fitting)} of {len(own)} tensors{kept}"


def parameter_count(module: nn.Module) -> int:
    """How many numbers the module's parameters hold."""
    return sum(parameter.numel() for parameter in module.parameters())
