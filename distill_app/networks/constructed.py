"""Weights that a constructor loads by itself: recognising them, and asking for them once where there is no network."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from torch import Tensor, nn

from distill_app.config.start import asking_argument
from distill_app.networks.fitting import head_of
from distill_app.networks.origin import Origin
from distill_app.words import some

_REACH_SECONDS = 5


@dataclass
class Loadings:
    """What was loaded while a constructor ran."""

    sources: list[list[Tensor]] = field(
        default_factory=list
    )  # tensors that were copied in, held so that none is reused
    filled: list[list[nn.Parameter]] = field(default_factory=list)  # parameters that they were copied to


@contextmanager
def watched() -> Iterator[Loadings]:
    """Notes every `load_state_dict` of every module: what timm, torchvision, torch.hub and users' constructors call."""
    loadings, original = Loadings(), nn.Module.load_state_dict

    def noting(self: nn.Module, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        outcome = original(self, state_dict, *args, **kwargs)
        missing = set(getattr(outcome, "missing_keys", ()))
        loadings.sources.append([value for value in state_dict.values() if isinstance(value, Tensor)])
        names = self.named_parameters(remove_duplicate=False)
        loadings.filled.append([parameter for name, parameter in names if name not in missing and name in state_dict])
        return outcome

    nn.Module.load_state_dict = noting  # type: ignore[method-assign]
    try:
        yield loadings
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]


def constructed(
    net: nn.Module, loadings: Loadings, *, conf: Mapping[str, Any], taps: Mapping[str, str] | None = None
) -> Origin:
    """Where the weights of a network came from when only its constructor ran.

    Args:
        net: The network.
        loadings: What was loaded meanwhile.
        conf: What it was built from. A constructor that is asked for weights is believed, however it loads them.
        taps: The paths of its taps.
    """
    head = head_of(net, taps)
    copied = _copied(net, loadings)
    filled = {id(parameter) for part in copied for parameter in part}
    asked = asking_argument(conf)
    names = dict(net.named_parameters())
    if not names:
        return Origin("no parameters")
    if not (copied or asked):
        return Origin(head=head)
    random = tuple(name for name, parameter in names.items() if id(parameter) not in filled)
    if len(random) == len(names):
        random = ()  # copies of what was loaded, or loaded in a way of its own: which tensors is not known
    source = f"loaded by its constructor, {conf.get('_target_')}{f' with {asked}' if asked else ''}"
    notes = (f"without {some(random)}, {len(random)} of {len(names)} parameters",) if random else ()
    return Origin(source, loaded=True, notes=notes, random=random, head=head)


def _copied(net: nn.Module, loadings: Loadings) -> list[list[nn.Parameter]]:
    """The loadings from elsewhere: a network that starts an average of itself loads its own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*net.parameters(), *net.buffers()]}
    return [
        filled
        for sources, filled in zip(loadings.sources, loadings.filled, strict=True)
        if filled and not all(tensor.untyped_storage().data_ptr() in own for tensor in sources)
    ]


@contextmanager
def one_attempt(conf: Mapping[str, Any]) -> Iterator[None]:
    """Takes the hub of Hugging Face for offline while a constructor runs, if it cannot be reached.

    The hub's client otherwise tries every file it can think of six times, with growing pauses, before it looks into its
    cache.
    """
    hub: Any = None
    if asking_argument(conf):
        with suppress(ImportError):
            hub = import_module("huggingface_hub.constants")
    if hub is None or hub.HF_HUB_OFFLINE or _reachable(str(hub.ENDPOINT)):
        yield
        return
    hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = False


def _reachable(address: str) -> bool:
    try:
        urlopen(Request(address, method="HEAD"), timeout=_REACH_SECONDS).close()
    except HTTPError:
        return True  # it answered
    except OSError:
        return False
    return True


def download_problem(error: BaseException | None) -> str:
    """The cause, if an exception goes back to a file that could not be fetched; else ""."""
    causes = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    clients = ("huggingface_hub", "httpx", "httpcore", "requests", "urllib3")
    for cause in causes:
        if isinstance(cause, OSError) or type(cause).__module__.split(".")[0] in clients:
            return f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0][:200]}"
    return ""
