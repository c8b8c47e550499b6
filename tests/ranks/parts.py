"""One rank of a test of the parts: `python parts.py RESULT`; the first one stores what was found, name -> value."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_app.config.schema import RuntimeConf
from distill_app.errors import ConfigError, RankFailed
from distill_app.machine.parallel import Parallel
from distill_app.machine.process import join, leave
from distill_app.networks.whole_norm import normalise_apart, normalise_together
from distill_app.world import World, common_number, is_shared, mean_of_means, own_rows, own_share, shared_batch, whole

SIZES = (3, 2)


def messages(world: World) -> dict[str, Any]:
    def fails() -> None:
        raise ConfigError(["stage.lr: is wrong", "seed: too"])

    try:
        world.from_main(fails)
        told: Any = "nothing"
    except ConfigError as error:
        told = error.errors
    sums = world.total({"a": torch.tensor(1.0 + world.rank), "b": torch.tensor(2.0)})
    return {
        "gather": world.gather(world.rank * 10),
        "from_main": world.from_main(lambda: f"rank {world.rank}"),
        "errors_on_all": world.gather(told),
        "agree": world.agree(world.rank, 5 - world.rank),
        "total": {name: float(value) for name, value in sums.items()},
    }


def rows(world: World) -> dict[str, Any]:
    everything = torch.arange(10.0).view(5, 2)
    start = sum(SIZES[: world.rank])
    mine = everything[start : start + SIZES[world.rank]].clone().requires_grad_()
    assert whole(mine) is mine and not is_shared() and own_share() == 1.0 and own_rows(4) == slice(0, 4)
    with shared_batch(SIZES, world.rank):
        gathered = whole(mine)
        # Every rank has the same loss of all rows: what flows back is the sum of what each of them asks for.
        ((gathered * everything).sum() * own_share()).backward()
        views = whole(torch.full((2 * SIZES[world.rank], 1), float(world.rank)))  # two rows a sample
        labels = whole(torch.full((SIZES[world.rank],), world.rank))
        mean = mean_of_means(mine.detach().mean())
        numbers = [common_number() for _ in range(2)]
        place = own_rows(SIZES[world.rank])
    assert mine.grad is not None
    return {
        "gathered": world.gather(gathered.tolist()),
        "gradient": world.gather(mine.grad.tolist()),
        "views": views.flatten().tolist(),
        "labels": labels.tolist(),
        "mean": float(mean),
        "numbers": world.gather(numbers),
        "places": world.gather([place.start, place.stop]),
    }


def norms(world: World) -> dict[str, Any]:
    gaps = {}
    shapes = {"2d": (5, 4, 3, 3), "1d": (5, 4), "3d": (5, 4, 2, 2, 2)}
    kinds = {"2d": nn.BatchNorm2d, "1d": nn.BatchNorm1d, "3d": nn.BatchNorm3d}
    for name, options in (
        ("2d", {}),
        ("1d", {}),
        ("3d", {}),
        ("2d", {"affine": False}),
        ("2d", {"momentum": None}),
        ("2d", {"track_running_stats": False}),
    ):
        torch.manual_seed(0)
        everything, pull = torch.randn(shapes[name]) * 3 + 1, torch.randn(shapes[name])
        one = kinds[name](4, **options)  # type: ignore[arg-type]
        if one.affine:
            nn.init.normal_(one.weight)
            nn.init.normal_(one.bias)
        two = copy.deepcopy(one)
        changed = normalise_together(nn.Sequential(two))
        start = sum(SIZES[: world.rank])
        part = slice(start, start + SIZES[world.rank])
        x, y = everything.clone().requires_grad_(), everything[part].clone().requires_grad_()
        for _ in range(2):
            (one(x) * pull).sum().backward()
            with shared_batch(SIZES, world.rank):
                (two(y) * pull[part]).sum().backward()
        assert type(two) is kinds[name] and two.state_dict().keys() == one.state_dict().keys()
        found = [gap(y.grad, x.grad[part])]  # type: ignore[index, arg-type]
        for theirs, ours in zip(one.parameters(), two.parameters(), strict=True):
            total = world.total({str(n): each for n, each in enumerate(ours.grad.flatten())})  # type: ignore[union-attr]
            found.append(gap(torch.stack(list(total.values())), theirs.grad.flatten()))  # type: ignore[union-attr]
        found += [gap(two.state_dict()[key], value) for key, value in one.state_dict().items()]
        normalise_apart(changed)
        assert "forward" not in vars(two)
        gaps[f"{name} {options}"] = max(world.gather(max(found)))
    return gaps


def divergence(world: World) -> dict[str, Any]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    parallel = Parallel(module, world, counted=[module])
    parallel.refuse_divergence(where="here")
    module[1].running_mean.fill_(float(world.rank))
    kept = world.gather(parallel.statistics())
    parallel.mean_statistics()
    mean = module[1].running_mean.tolist()
    parallel.restore(kept)
    own = world.gather(module[1].running_mean.tolist())
    parallel.restore([*kept, *kept])  # of four ranks
    of_four = module[1].running_mean.tolist()
    with torch.no_grad():
        module[0].bias += 1e-6 * world.rank
    try:
        parallel.refuse_divergence(where="at step 3")
        told = ""
    except RankFailed as error:
        told = str(error)
    return {"mean": mean, "own": own, "of_four": of_four, "told": told}


def gap(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-6))


if __name__ == "__main__":
    here = join(RuntimeConf(device="cpu"))
    result = {each.__name__: each(here) for each in (messages, rows, norms, divergence)}
    if here.main:
        Path(sys.argv[1]).write_text(json.dumps(result))
    here.wait()
    leave()
