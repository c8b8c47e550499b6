"""What is wrong with where networks' weights shall come from, as far as paths and names show it; no torch."""

from collections.abc import Iterator

from distill_app.config.plan import model_key, models_of
from distill_app.config.schema import AppConf
from distill_app.config.start import chain_of, checkpoint_file
from distill_app.errors import WeightsError


def weights_errors(app: AppConf) -> Iterator[str]:
    """Yields what is wrong with `checkpoint` and `starts_like`, for every network of the config."""
    absent: set[str] = set()  # a file that several networks name is told once, for the first of them
    for name, conf in models_of(app).items():
        key = model_key(app, name)
        if conf.checkpoint is not None and not conf.checkpoint.strip():
            yield f"{key}.checkpoint: is empty; give a file, or null for none"
        elif conf.checkpoint:
            try:
                checkpoint_file(conf, key=key)
            except WeightsError as error:
                if conf.checkpoint not in absent:
                    yield str(error)
                absent.add(conf.checkpoint)
        elif not conf.weights and conf.starts_like is None:
            how = "checkpoint_key" if conf.checkpoint_key else "drop_head" if conf.drop_head else ""
            if how:
                yield f"{key}.{how}: says how to read a checkpoint, and there is none; set {key}.checkpoint=FILE"
        if conf.starts_like is not None:
            yield from _like_errors(app, name, key)


def _like_errors(app: AppConf, name: str, key: str) -> Iterator[str]:
    try:
        first = chain_of(app, name)[-1]
    except WeightsError as error:
        yield str(error)
        return
    if models_of(app)[first].net != models_of(app)[name].net:
        yield f"{key}.starts_like: {name} and {first} have different nets, so they cannot start alike; take it out"
