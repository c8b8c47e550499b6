"""What a tracker needs that is not installed with the program."""

from importlib.util import find_spec

from distill_app.errors import SettingError


def require(package: str, *, extra: str) -> None:
    """Refuses a tracker whose package is not installed.

    Raises:
        SettingError: With what to type.
    """
    if find_spec(package) is None:
        raise SettingError(
            f"{package} is not installed: pip install 'distill-app[{extra}]', or choose tracker=tensorboard"
        )
