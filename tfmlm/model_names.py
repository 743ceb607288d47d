"""Names of models and tokenizers: a folder, a Hub id, or `package:NAME/PATH` inside an installed package."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import constants

from tfmlm.errors import UserError

PACKAGE_SCHEME = "package:"
"""Before the name of an installed package and a folder in it."""

HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
"""A repository on the Hub, with or without its owner."""


def is_hub_id(name: str) -> bool:
    """True for what may be a repository on the Hub, and is no path here."""
    return HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def resolve_name_or_path(name_or_path: str, key: str) -> str:
    """Turns `package:NAME/PATH` into a folder and checks that a path is one; a Hub id stays as it is.

    Args:
        name_or_path: what the configuration says.
        key: the configuration key, for the message.

    Raises:
        UserError: the package is not installed, or the path is not a folder.
    """
    if name_or_path.startswith(PACKAGE_SCHEME):
        package, _, inner = name_or_path.removeprefix(PACKAGE_SCHEME).partition("/")
        try:
            spec = find_spec(package)  # finds the folder without importing the package
        except (ImportError, ValueError):
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                f"{key} {name_or_path!r}: the package {package!r} is not installed; "
                "`make train` installs the quickstart's"
            )
        name_or_path = str(Path(spec.submodule_search_locations[0], inner))
    if not Path(name_or_path).is_dir() and not is_hub_id(name_or_path):
        raise UserError(f"{key} {name_or_path!r} is not a folder; give a model folder or a Hub id")
    return name_or_path


def advise_offline() -> str:
    """Advice for a failure of the Hub where the environment forbids to ask it, else nothing."""
    if not constants.HF_HUB_OFFLINE:
        return ""
    return "; HF_HUB_OFFLINE is set and this machine has no copy: unset it once to download one"
