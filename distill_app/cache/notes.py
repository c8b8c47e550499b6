"""What of the cache's settings does nothing in a stage, or not quite what one might think."""

from collections.abc import Callable, Mapping
from typing import Any

from distill_app.config.addresses import Address
from distill_app.config.cached import _readers, _reads, _temperature, cached_taps, temperature_of
from distill_app.config.plan import StagePlan
from distill_app.config.schema import CacheConf


def cache_notes(
    plan: StagePlan, conf: CacheConf, *, sources: Mapping[str, Any], is_logits: Callable[[str], bool]
) -> list[str]:
    """What of `cache.taps` and `cache.top_k` does nothing in a stage, or not quite what one might think.

    Args:
        plan: The stage.
        conf: The cache.
        sources: What every adapter of the experiment reads, by its name.
        is_logits: Whether a tap holds class logits that are read by their softmax, which `cache.top_k` is for.
    """
    if not conf.enabled:
        return []
    cached = cached_taps(plan, conf)
    notes = [_left_out(plan, name, conf) for name in plan.taps if name not in plan.trained and name not in cached]
    if conf.top_k is None or not cached:
        return notes
    logits = [(network, tap) for network, taps in cached.items() for tap in taps if is_logits(tap)]
    notes += [note for network, tap in logits if (note := _made_up(plan, network, tap, sources))]
    return notes if logits else [*notes, "cache.top_k: does nothing here, since no class logits are read"]


def _left_out(plan: StagePlan, network: str, conf: CacheConf) -> str:
    chosen = [Address.parse(text, plan.roles) for text in conf.taps or []]
    names = {address.name for address in chosen if address.space == network}
    left = ", ".join(tap for tap in plan.taps[network] if tap not in names)
    return f"cache: {network} runs in every epoch, since cache.taps leaves out {left} of it"


def _made_up(plan: StagePlan, network: str, tap: str, sources: Mapping[str, Any]) -> str | None:
    """What terms see that read a cache of the largest logits at another temperature than it was made for."""
    common = temperature_of(plan, network, tap)
    terms = [name for name in _readers(plan, network, tap) if _temperature(plan.terms[name].loss) != common]
    adapters = [name for name in plan.adapters if _reads(sources.get(name), plan, network, tap)]
    if not terms and not adapters:
        return None
    who = ", ".join([*(f"term {name}" for name in terms), *(f"adapter {name}" for name in adapters)])
    return (
        f"cache.top_k: {network}.{tap} has the right probabilities at temperature {common:g}; {who} reads it "
        f"otherwise, and sees one made-up value for all classes but the largest (a temperature that is not written in "
        f"the config of a loss is not known here)"
    )
