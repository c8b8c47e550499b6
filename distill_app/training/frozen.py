"""What networks that a stage does not train say of a batch."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from distill_app.cache.replay import StageCache
from distill_app.config.plan import AVERAGE, StagePlan
from distill_app.config.schema import RuntimeConf
from distill_app.machine.sharding import sharded
from distill_app.networks.folding import FrozenForm
from distill_app.networks.hooks import TappedModel
from distill_app.networks.modes import evaluating, untouched
from distill_app.networks.network import Network
from distill_app.networks.run import Call, Namespace
from distill_app.networks.taps import first_rows
from distill_app.training.precision import Precision
from distill_app.world import World


class FrozenNetworks:
    """Gives the taps of the networks that a stage reads and does not train; the cache is one way to know them.

    Networks that have to run do so in the form in which they run fastest, which is made at their first batch: their
    weights must be those of the training by then, and what the cache knows need not be made ready at all.

    Args:
        plan: The stage.
        networks: By name.
        examples: An example activation of every tap that is read, and of `batch`.
        redesigns: What runs in the place of a network.
        call: How the task runs a network on a batch.
        precision: In which they run.
        runtime: Whether norms are folded and networks compiled.
        cache: Knows what has been said of a batch before.
        world: The ranks, on which a network may lie in parts.
        device: Where it runs.
        averages: Of the weights of trained networks, by network, which the stage reads.
    """

    def __init__(
        self,
        plan: StagePlan,
        *,
        networks: Mapping[str, Network],
        examples: Namespace,
        redesigns: Mapping[str, Sequence[str | nn.Module] | None],
        call: Call,
        precision: Precision,
        runtime: RuntimeConf,
        cache: StageCache,
        world: World,
        device: torch.device,
        averages: Mapping[str, nn.Module] | None = None,
    ):
        self.names = [name for name in plan.taps if name not in plan.trained]
        self.cache = cache
        self._plan, self._networks, self._examples, self._redesigns = plan, networks, examples, redesigns
        self._call, self._precision, self._runtime = call, precision, runtime
        self.tapped = {name: self._hooked(name) for name in self.names}
        self.forms = {name: self._form(name) for name in self.names}
        self._ready: set[str] = set()
        self._averages = {
            name: networks[name].tapped(plan.average_taps[name], stage=plan.name, module=module)
            for name, module in (averages or {}).items()
        }
        self._world, self._device, self._give_back = world, device, ExitStack()

    def activations(self, batch: Mapping[str, Any]) -> Namespace:
        """The taps of all networks on a prepared batch: read where the cache has all rows of one, else computed.

        Returns:
            Network -> tap -> activation, without gradient.
        """
        found = self.cache.find(batch)
        said = self.cache.merge(found, self.run(batch, (name for name in self.names if name not in found.whole)))
        return {**said, **self._of_averages(batch)}

    @torch.no_grad()
    def run(self, batch: Mapping[str, Any], names: Iterable[str] | None = None) -> Namespace:
        """The same of some of them, or of all, computed."""
        with self._precision.forward():
            wanted = self.names if names is None else names
            said = {name: self._call(self.running(name), batch, name=name) for name in wanted}
        return {**said, **self._of_averages(batch)} if names is None else said

    @torch.no_grad()
    def _of_averages(self, batch: Mapping[str, Any]) -> Namespace:
        """What averages of weights say, which are others in every step: in train mode, as mean teachers are."""
        with self._precision.forward():
            return {f"{name}{AVERAGE}": self._call(tapped, batch, name=name) for name, tapped in self._averages.items()}

    @torch.no_grad()
    def on_examples(self, batch: Mapping[str, Any]) -> Namespace:
        """What they say of the first example images, before their weights are final and without the cache."""
        with ExitStack() as stack:
            for tapped in self._averages.values():
                stack.enter_context(untouched(tapped))
            averages = self._of_averages(batch)
        return {**averages, **self.of_frozen(batch)}

    @torch.no_grad()
    def of_frozen(self, batch: Mapping[str, Any]) -> Namespace:
        """The same of the networks that are frozen alone."""
        count, of = len(batch["index"]), len(self._examples["batch"]["index"])
        if count == of:
            return {name: self._examples[name] for name in self.names}
        return {
            name: first_rows(self._examples[name], count, of=of)
            if self._redesigns[name] == []  # runs nothing
            else self._call(self.tapped[name], batch, name=name)
            for name in self.names
        }

    def running(self, name: str) -> TappedModel:
        """A network as it runs in training; its weights must be final by now."""
        if name not in self._ready:
            self._make_ready(name)
        return self.tapped[name]

    def _make_ready(self, name: str) -> None:
        self.tapped[name].close()
        form = self.forms[name].build()
        if self._world.size > 1 and self._runtime.parallel == "fsdp" and self._redesigns[name] != []:
            form = self._sharded(name, form)
        network = self._hooked(name, form)
        if self._redesigns[name] != []:
            with self._precision.forward(), untouched(network), torch.no_grad():
                self._call(network, self._examples["batch"], name=name)  # learns where to stop
        self.tapped[name] = network
        self._ready.add(name)
        compile_network(network, self._runtime)

    def _sharded(self, name: str, form: nn.Module) -> nn.Module:
        """The form in parts on all ranks; a GPU gets the room of the whole network back until the stage is over."""
        part = sharded(form, self._world, device=self._device)
        if self._device.type == "cuda":
            module = self._networks[name].module.to("cpu")
            for path in self._plan.parts.get(name, ()):  # adapters run it
                self._networks[name].part(path).to(self._device)
            self._give_back.callback(module.to, self._device)
        return part

    def _hooked(self, name: str, module: nn.Module | None = None) -> TappedModel:
        """A network with its hooks, or another form of it, in eval mode."""
        taps, redesign = self._plan.taps[name], self._redesigns[name]
        return self._networks[name].tapped(taps, stage=self._plan.name, redesign=redesign, module=module).eval()

    def _form(self, name: str) -> FrozenForm:
        """How a network will run; made when its weights are known."""
        network, batch = self._networks[name], self._examples["batch"]
        fold = self._runtime.fold_batch_norm and self._redesigns[name] != []

        def run(module: nn.Module) -> dict[str, Any]:
            with self._hooked(name, module) as tapped:
                return self._call(tapped, batch, name=name)

        def own() -> dict[str, Any]:
            with evaluating(self.tapped[name]):
                return self._call(self.tapped[name], batch, name=name)

        if fold:
            with untouched(network.module), torch.no_grad():
                own()  # learns where to stop
        paths = network.paths(self._plan.taps[name])
        return FrozenForm(network.module, paths, run=run, fold=fold, dtype=self._precision.dtype, own=own)

    def eval(self) -> None:
        """Eval mode for all of them but averages of weights."""
        for network in self.tapped.values():
            network.eval()
        for network in self._averages.values():
            network.train()

    def close(self) -> None:
        """Takes the hooks out and gives the cache's files back."""
        self.cache.close()
        self._give_back.close()
        for network in (*self.tapped.values(), *self._averages.values()):
            network.close()


def compile_network(network: TappedModel, runtime: RuntimeConf) -> None:
    """Compiles a network in place where the config asks for it, once it has learned where to stop."""
    if runtime.compile:
        network.compile(backend=runtime.compile_backend)
