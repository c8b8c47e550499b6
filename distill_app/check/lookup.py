"""What nobody wrote of a network and it has to be asked for: its taps, its input; torch is imported where one is."""

from omegaconf import DictConfig

from distill_app.check.interpolations import taps_referred_to
from distill_app.config.inputs import asks_timm, frozen_networks
from distill_app.config.plan import ROLES, StagePlan, model_key, models_of, taps_to_find
from distill_app.config.planning import plan_stages
from distill_app.config.schema import AppConf


def with_found_inputs(app: AppConf, plans: list[StagePlan]) -> list[str]:
    """Writes into the config what networks of timm say of their images, and returns what is wrong with asking them."""
    frozen, errors, asked = frozen_networks(plans), [], False
    for name, conf in models_of(app).items():
        if conf.input.find and not asks_timm(conf, frozen=False):
            key = f"{model_key(app, name)}.input"
            errors.append(f"{key}.find: only networks of timm say what they take; write {key}.size, mean and std")
        asked |= asks_timm(conf, frozen=name in frozen)
    if asked and not errors:
        from distill_app.check.inputs import fill_in_inputs

        errors += fill_in_inputs(app, plans)
    return errors


def with_found_taps(app: AppConf, plans: list[StagePlan]) -> tuple[list[StagePlan], list[str]]:
    """The plans once taps that nobody wrote were found in the networks, which alone needs torch, and what is wrong."""
    wanted = taps_to_find(app, plans)
    if not wanted:
        return plans, []
    from distill_app.check.taps import fill_in_taps

    errors, unbuilt = fill_in_taps(app, wanted)
    again, problems = plan_stages(app)
    told = [text for text in problems if not errors]
    return (plans, errors) if unbuilt else (again, [*errors, *told])


def fill_in_referred(cfg: DictConfig) -> None:
    """Finds taps that other keys refer to and nobody wrote, before references are resolved."""
    for role in taps_referred_to(cfg):
        conf = cfg[role]
        if role in ROLES and (not conf.taps if conf.find_taps is None else conf.find_taps):
            from distill_app.check.taps import fill_in_referred_taps

            fill_in_referred_taps(cfg, role)
