"""The user's `./conf` is searched before dlrun's own, by whatever starts Hydra on dlrun's own."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OwnConf(SearchPathPlugin):
    """Puts the current directory's `conf` before dlrun's."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folder, if Hydra searches dlrun's own."""
        from dlrun.config import paths

        own, packaged = paths.user_folder(), str(paths.package_folder())
        # the search paths of other programs stay as they are
        if own and any(element.path == packaged for element in search_path.get_path()):
            search_path.prepend("the current directory", f"file://{own}", SearchPathQuery(provider="main"))
