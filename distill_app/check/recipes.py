"""Which networks are trained by a recipe that is for others. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from distill_app.config.groups import conf_dir, options_of
from distill_app.config.plan import StagePlan, model_key, models_of
from distill_app.config.schema import AppConf, ModelConf
from distill_app.config.start import asking_argument, chain_of, start_of

FINETUNE = "finetune"
# Networks of which the small ones are trained as before when they go on from weights of one's own.
_LARGE = ("imagenet", "transformer", None)
# How the names of networks begin that train as transformers do, in files for any network of torchvision or timm.
_TRANSFORMERS = ("vit_", "deit", "swin", "beit", "maxvit", "convnext")


def recipe_notes(app: AppConf, plans: Sequence[StagePlan]) -> Iterator[str]:
    """A warning for each network that a stage trains by a recipe which is for others, once.

    Args:
        app: The experiment.
        plans: Its stages.
    """
    told: set[tuple[str | None, ...]] = set()
    if not app.stage.fits:
        return
    for plan in plans:
        for name in plan.trained:
            family, pretrained = _family(app, name)
            if pretrained and plan.conf.skip_if_loaded:
                continue
            kind = (family, chain_of(app, name)[-1])  # one that starts like another has its recipe
            if family is None or family in app.stage.fits or kind in told:
                continue
            told.add(kind)
            yield _told(app, plan, name, family)


def _family(app: AppConf, name: str) -> tuple[str | None, bool]:
    """The kind of recipe that a network needs, and whether it begins with weights."""
    models = models_of(app)
    family = next(filter(None, (_trains_as(models[each]) for each in chain_of(app, name))), None)
    start = start_of(app, name)
    published = bool(start.weights or asking_argument(start.net))
    pretrained = published or bool(start.checkpoint and not start.checkpoint_optional)
    if published or (pretrained and family in _LARGE):
        return FINETUNE, True
    return family, pretrained


def _trains_as(conf: ModelConf) -> str | None:
    """What a network's config says of it; of those that are built by a name, the name may say more."""
    net: Mapping[str, Any] = conf.net if isinstance(conf.net, Mapping) else {}
    name = str(net.get("model_name") or net.get("name") or "").rpartition("/")[2]
    return "transformer" if conf.trains_as == "imagenet" and name.startswith(_TRANSFORMERS) else conf.trains_as


def _told(app: AppConf, plan: StagePlan, name: str, family: str) -> str:
    what = "begins with weights" if family == FINETUNE else f"is of the kind {family}"
    fitting = [option for option, fits in recipes().items() if family in fits]
    remedy = f"; for such there is stage={' or stage='.join(fitting)}" if fitting else ""
    return (
        f"{plan.key}: {model_key(app, name)} {what}, and the recipe, at a learning rate of {plan.conf.lr:g}, is for "
        f"networks of the kind {' or '.join(app.stage.fits)}, so it may learn little, or forget what it knows{remedy}; "
        f"where you have chosen the rate yourself, stage.fits=[] says so"
    )


def recipes() -> dict[str, list[str]]:
    """The recipes there are, and which networks each says that it fits."""
    files = {option: OmegaConf.load(f"{conf_dir()}/stage/{option}.yaml") for option in options_of("stage")}
    return {option: list(OmegaConf.select(conf, "fits", default=())) for option, conf in files.items()}
