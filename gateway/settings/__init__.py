"""What people write, read and checked: from four YAML files to the `Rules` of a running gateway.

`load_settings` reads and validates, `build_rules` turns settings into values of the core, `ConfigWatcher`
notices changes. Nothing here knows the network, the stores or the pipeline.
"""

from gateway.settings.build import build_keyring, build_limits, build_rules, declared_keys
from gateway.settings.load import Settings, find_directory, load_settings, packaged_directory
from gateway.settings.secrets import prefix_secret, store_url
from gateway.settings.watch import ConfigWatcher, Reloaded

__all__ = [
    "ConfigWatcher",
    "Reloaded",
    "Settings",
    "build_keyring",
    "build_limits",
    "build_rules",
    "declared_keys",
    "find_directory",
    "load_settings",
    "packaged_directory",
    "prefix_secret",
    "store_url",
]
