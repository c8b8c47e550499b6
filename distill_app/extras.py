"""Packages that come with an extra of this one, and what to type where one of them is missing."""

from importlib.util import find_spec

from distill_app.errors import NotInstalled

# What is imported -> the extra of pyproject.toml that brings it.
EXTRAS = {
    "timm": "timm",
    "datasets": "hf",
    "optuna": "optuna",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
    "faster_coco_eval": "faster-coco-eval",
    "hotcoco": "hotcoco",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "torchdistill": "bench",
}


def install(package: str) -> str:
    """What to type for a package of `EXTRAS`."""
    return f"pip install 'distill-app[{EXTRAS[package]}]'"


def not_installed(package: str) -> str:
    """The words for a package of `EXTRAS` that is not there."""
    return f"{package} is not installed; {install(package)}"


def missing(*packages: str) -> list[str]:
    """Those of some packages that are not installed."""
    return [package for package in packages if find_spec(package) is None]


def require(package: str) -> None:
    """Refuses what cannot work without a package.

    Raises:
        NotInstalled: With what to type.
    """
    if missing(package):
        raise NotInstalled(not_installed(package))


def remedy(error: BaseException) -> str:
    """`; pip install ...` where an import failed for want of a package of `EXTRAS`, else nothing."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    return f"; {install(name)}" if name in EXTRAS else ""
