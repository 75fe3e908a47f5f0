"""Whether this machine is logged in to W&B, found without importing wandb or asking a server."""

from __future__ import annotations

import configparser
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["logged_in", "server"]

DEFAULT_SERVER = "https://api.wandb.ai"


def server(environment: Mapping[str, str] | None = None) -> str:
    """Return the address of the W&B server: WANDB_BASE_URL, W&B's settings file, or theirs."""
    env = os.environ if environment is None else environment
    if env.get("WANDB_BASE_URL"):
        return env["WANDB_BASE_URL"]
    folder = Path(env.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read(folder / "settings", encoding="utf-8")
        return settings.get("default", "base_url", fallback=DEFAULT_SERVER)
    except (configparser.Error, OSError, UnicodeDecodeError):
        return DEFAULT_SERVER


def logged_in(environment: Mapping[str, str] | None = None) -> bool:
    """Tell whether a key for the W&B server is configured: in the environment or in netrc."""
    env = os.environ if environment is None else environment
    if env.get("WANDB_API_KEY") or env.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(server(env)).netloc
    home = Path.home()
    files = [Path(env["NETRC"])] if env.get("NETRC") else [home / ".netrc", home / "_netrc"]
    for file in files:
        try:
            entry = netrc.netrc(file).authenticators(host)
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
            continue
        if entry is not None and entry[2]:
            return True
    return False
