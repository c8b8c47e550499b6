"""Networks that have to be looked into for taps that nobody wrote; torch is imported where there is one."""

from omegaconf import DictConfig

from distill_app.check.interpolations import taps_referred_to
from distill_app.config.plan import ROLES, StagePlan, plan_stages, taps_to_find
from distill_app.config.schema import AppConf


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
