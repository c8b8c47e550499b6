"""What Hydra had composed when it met an override that fits nothing: with it the others need no composition anew."""

import traceback
from dataclasses import dataclass
from types import FrameType

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, open_dict


@dataclass(frozen=True)
class Halfway:
    """A composed config to which the overrides that fit have been applied.

    Attributes:
        cfg: The config.
        mounts: Its options by group and place, {"model@teacher": "resnet50"}.
        failures: The overrides that do not fit, as typed, each with what was raised.
    """

    cfg: DictConfig
    mounts: dict[str, str]
    failures: list[tuple[str, Exception]]


def halfway(error: Exception) -> Halfway | None:
    """Goes on where Hydra stopped at an override; None where it stopped before there was a config.

    Hydra keeps what it has composed in the frames that raised, and nowhere else.
    """
    frames: dict[str, FrameType] = {
        frame.f_code.co_name: frame for frame, _ in traceback.walk_tb(error.__traceback__) if _is_loader(frame)
    }
    try:
        loading, applying = (
            frames[name].f_locals for name in ("_load_configuration_impl", "_apply_overrides_to_config")
        )
        cfg, choices = loading["cfg"], loading["defaults_list"].overrides.known_choices
        overrides, culprit = applying["overrides"], applying["override"]
    except (KeyError, AttributeError):
        return None
    failures = [(culprit.input_line, error)]
    for override in overrides[overrides.index(culprit) + 1 :]:
        try:
            ConfigLoaderImpl._apply_overrides_to_config([override], cfg)
        except ConfigCompositionException as other:
            failures.append((override.input_line, other))
    with open_dict(cfg):
        cfg.pop("hydra", None)
    return Halfway(cfg, {str(mount): str(option) for mount, option in choices.items()}, failures)


def applied(override: str, cfg: DictConfig) -> Exception | None:
    """Applies an override of a key to a composed config; what was raised if it does not fit."""
    parsed = OverridesParser.create().parse_override(override)
    try:
        ConfigLoaderImpl._apply_overrides_to_config([parsed], cfg)
    except ConfigCompositionException as error:
        return error
    return None


def _is_loader(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") == ConfigLoaderImpl.__module__
