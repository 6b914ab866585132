"""The allow list of `_target_`.

Somebody else may have written a configuration, and to name a function is to call it. So a `_target_` may name the
parts of dlrun, the layers and optimizers of a few libraries, modules in the user's own folder, and names from
`trusted:`. The object must also be defined where its path says: no path leads through a module into its imports.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import sysconfig
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from dlrun.config import paths
from dlrun.errors import ConfigError, MissingModule, did_you_mean
from dlrun.storage import lookup

ROOMS = "datasets tokenizers models losses optimizers schedules metrics observers studies"
PART_ROOMS = tuple(f"dlrun.{room}" for room in ROOMS.split())
"""The rooms of parts. Only names in the `__all__` of a file there may be named, nothing else of dlrun."""

LIBRARIES = (
    *("torch.nn", "torch.optim", "torchmetrics", "sklearn.metrics"),
    *("torchvision.models", "torchvision.transforms.v2", "timm"),
)
"""Libraries whose layers, optimizers, metrics, models and transforms may be named."""

PACKAGES = tuple(dict.fromkeys(library.split(".")[0] for library in LIBRARIES))

SKLEARN = tuple(f"sklearn.metrics._{module}" for module in ("classification", "ranking", "regression"))
PRIVATE = ("timm.models._factory.create_model", *SKLEARN)  # with public names elsewhere
FUNCTIONS = ("torch.nn.functional", "torchmetrics.functional", "torchvision.models", "timm.models", *PRIVATE)
"""Those whose functions may be named; of the others, only classes."""
NEVER = (
    *("torch.load", "torch.serialization", "torch.hub", "torch.jit", "torch.ops", "torch._ops"),
    *("torch.utils.cpp_extension", "torch.package", "torch.export", "torch.storage", "torch._inductor"),
    *("torch.distributed.checkpoint", "torch.distributed.run", "torch.distributed.elastic", "dlrun"),
)
"""Refused even if they are trusted: they run code from files, or act on runs. Dlrun's parts are excepted."""

TRACING = ("torchvision.models.feature_extraction", "timm.utils.attention_extract", "timm.models._features_fx")
"""Modules that write Python source of the names in a model and run it (torch.fx); they are to be trusted by name."""

PUT_IT_THERE = " Put its file there, or install the package that its author names."


def resolve(path: str, *, trusted: Sequence[str] = (), folder: Path | None = None) -> Callable[..., Any]:
    """Import the class or function of a `_target_`.

    Modules under `folder` (default: the current directory) are the user's own.

    Raises `ConfigError` for a name that is not allowed, does not exist or cannot be called, and for a module that
    cannot be imported.

    >>> resolve("dlrun.losses.mse.mse").__name__
    'mse'
    """
    # the current directory is resolved as it is: a sweep asks for it ten times a job
    folder = folder.resolve() if folder else Path.cwd()
    names = _names(path)
    allowed = _Allowed(tuple(t.removesuffix(".*") for t in trusted), folder)
    allowed.check_path(path)
    module, rest = _import(names)
    found: Any = module
    for position, name in enumerate(rest):
        owner = ".".join(names[: len(names) - len(rest) + position])
        if position and not isinstance(found, type):
            raise ConfigError(f"_target_ `{path}`: `{owner}` is not a class, so nothing in it can be named.")
        if not hasattr(found, name):
            raise ConfigError(f"_target_ `{path}`: there is no `{name}` in {owner}.{_suggest(found, name)}")
        found = getattr(found, name)
    if isinstance(found, ModuleType):
        raise ConfigError(f"_target_ `{path}` is a module; expected a class or function in it, `{path}.NAME`.")
    if not callable(found):
        raise ConfigError(f"_target_ `{path}` is a value ({type(found).__name__}); expected a class or function.")
    allowed.check_origin(path, found)
    target: Callable[..., Any] = found
    return target


def allows(path: str, *, trusted: Sequence[str] = (), packages: Sequence[str] = ()) -> bool:
    """The name is in `packages`, the user's folder, or trusted."""
    known = _Allowed(tuple(trusted), Path.cwd())
    if _within(path, NEVER) or not (_within(path, (*known.trusted, *packages)) or known.is_users(path)):
        return False
    # the object counts, not its path: `logging.os.system` is no part of `logging`, nor `mine.os.system` mine
    full = _origin(path) or path
    if path in known.trusted:
        return not _within(full, NEVER)
    return _within(full, (*known.trusted, *packages)) or (known.is_users(full) and not _within(full, NEVER))


def _origin(path: str) -> str:
    """The full name of an object where it is defined; empty if its package is not installed."""
    names = path.split(".")
    for length in range(len(names) - 1, 0, -1):
        with suppress(Exception):  # an import may raise anything; using the name then says so
            found: Any = importlib.import_module(".".join(names[:length]))
            for name in names[length:]:
                found = getattr(found, name, None)
            return f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', '')}"
    return ""


class _Allowed:
    """A user's trusted names and own folder."""

    def __init__(self, trusted: tuple[str, ...], folder: Path) -> None:
        self.trusted = trusted
        self.folder = folder
        if str(folder) not in sys.path and "" not in sys.path and not paths.holds_runs(folder):
            sys.path.append(str(folder))  # at the end: a user's file hides no library

    def check_path(self, path: str) -> None:
        """Refuse a path before any of it is imported."""
        if _within(path, PART_ROOMS):
            return
        if _within(path, NEVER):
            raise ConfigError(_never(path))
        if not (_within(path, LIBRARIES) or _within(path, self.trusted) or self.is_users(path)):
            self._refuse(path, "is not allowed")

    def check_origin(self, path: str, found: Any) -> None:
        """Refuse an object by the module of its definition."""
        # a partial of a module hides the function that would be called
        inner = found
        while isinstance(inner, functools.partial):
            inner = inner.func
        module = getattr(inner, "__module__", None) or "builtins"
        full = f"{module}.{getattr(inner, '__qualname__', type(inner).__qualname__)}"
        if _within(full, ("dlrun",)):
            if not _is_part(inner, module):
                raise ConfigError(_never(path))
            return
        if _within(full, NEVER):
            raise ConfigError(_never(path))
        if path in self.trusted or _within(full, self.trusted) or self.is_users(full):
            return
        if not (_within(full, LIBRARIES) and _is_library_part(inner, full)):
            self._refuse(path, f"leads to `{full}`, and that is not allowed")

    def is_users(self, path: str) -> bool:
        """In a module of the user's folder, neither installed nor received there."""
        module, *inner = path.split(".")
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):  # ValueError: `__main__` has no spec
            return False
        # finished runs lie below, also those that came from somebody else
        if spec is None or module == lookup.outputs().name:
            return False
        places = list(spec.submodule_search_locations or ([spec.origin] if spec.has_location and spec.origin else []))
        return bool(places) and all(self._is_own(Path(p).resolve(), inner) for p in places)

    def _is_own(self, place: Path, inner: Sequence[str]) -> bool:
        if not _is_inside(place, self.folder) or lookup.outputs().resolve() in place.parents:
            return False
        for name in inner:
            if not (place / name).is_dir():
                break
            place = place / name
        # whoever sent a run may have put a module beside it
        between = [place, *place.parents]
        below = between[: between.index(self.folder)]
        return not (paths.holds_runs(self.folder) or any(map(paths.is_received, below)))

    def _refuse(self, name: str, why: str) -> None:
        top = name.split(".")[0]
        here = [m.name for m in pkgutil.iter_modules([str(self.folder)])]
        # `iter_modules` lists no folder without `__init__.py`
        if paths.is_received((self.folder / top).resolve()) or (top in here and paths.holds_runs(self.folder)):
            why += (
                f": `{top}` lies with runs, sweeps or a `--config-dir` in one folder, which may come from somebody else"
            )
        elif top in here:
            why += f". Your own `{top}` is hidden by an installed module of that name: rename it"
        elif top not in sys.modules and importlib.util.find_spec(top) is None:
            close = did_you_mean(top, {*here, "dlrun", *PACKAGES})
            raise MissingModule(_missing(name, top) + (close or PUT_IT_THERE))
        raise ConfigError(
            f"_target_ `{name}` {why}. Allowed are the parts of dlrun, of {', '.join(LIBRARIES)}, and modules in"
            f" {self.folder}. If you trust it, type `'trusted=[{name}]'`, or write `trusted: [{name}]` in your own"
            f" conf/."
        )


def _missing(path: str, module: str) -> str:
    return f"_target_ `{path}`: there is no module `{module}`, neither installed nor in {Path.cwd()}."


def _is_part(found: Any, module: str) -> bool:
    """It is in the `__all__` of a part's file."""
    name = getattr(found, "__qualname__", "")
    return _within(module, PART_ROOMS) and name in getattr(sys.modules[module], "__all__", ())


def _is_library_part(found: Any, full: str) -> bool:
    import torch  # imported by now: every library of the list builds on it, or dlrun's own parts

    # a public name may lead to a private module; the files of torchvision's transforms are all private
    public = _within(full, PRIVATE) or "._" not in full.replace("transforms.v2._", "transforms.v2.")
    if not public or _within(full, TRACING):
        return False
    if isinstance(found, type):
        return issubclass(found, (torch.nn.Module, torch.optim.Optimizer))
    return inspect.isfunction(found) and _within(full, FUNCTIONS)


def _never(path: str) -> str:
    if path.split(".")[0] == "dlrun":
        rooms = ", ".join(part.removeprefix("dlrun.") for part in PART_ROOMS)
        return (
            f"_target_ `{path}` is never allowed: it is no part of a run. The parts of dlrun are in {rooms};"
            f" `dlrun list` shows them."
        )
    return f"_target_ `{path}` is never allowed: it can run code that a file brings along."


def _is_inside(place: Path, folder: Path) -> bool:
    """It is in the folder, outside any environment there."""
    if folder not in place.parents or {"site-packages", "dist-packages"} & set(place.parts):
        return False
    return Path(sysconfig.get_path("stdlib")).resolve() not in place.parents


def _names(path: str) -> list[str]:
    names = path.split(".")
    if len(names) < 2 or not all(n.isidentifier() for n in names):
        raise ConfigError(f"_target_ `{path}` is not a full name; expected MODULE.NAME, as in `mylab.Mine`.")
    if any(n.startswith("_") for n in names):
        raise ConfigError(f"_target_ `{path}` is private: no part of the name may begin with `_`.")
    return names


def _within(path: str, roots: Collection[str]) -> bool:
    return any(path == root or path.startswith(f"{root}.") for root in roots)


def _import(names: list[str]) -> tuple[ModuleType, list[str]]:
    """Split `names` into an imported module and the rest."""
    module = _import_one(names[0], names)
    for i, name in enumerate(names[1:], 1):
        inner = f"{module.__name__}.{name}"
        # an object of the module goes before a submodule of the same name; a module that it imports does not
        if hasattr(module, name) and not isinstance(getattr(module, name), ModuleType):
            return module, names[i:]
        if not hasattr(module, "__path__") or importlib.util.find_spec(inner) is None:
            if isinstance(getattr(module, name, None), ModuleType):
                raise ConfigError(
                    f"_target_ `{'.'.join(names)}`: `{name}` is a module that {module.__name__} imports."
                    f" Name a class or function by the module that defines it."
                )
            return module, names[i:]
        module = _import_one(inner, names)
    return module, []


def _import_one(name: str, names: list[str]) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:  # else a module that it imports is missing
            # only of known libraries: a package index may have another package of a private module's name
            how = f" Type `pip install {name}`." if name in PACKAGES else PUT_IT_THERE
            raise MissingModule(_missing(".".join(names), name) + how) from None
        raise _import_error(name, names, error) from error
    except Exception as error:
        raise _import_error(name, names, error) from error


def _import_error(name: str, names: list[str], error: Exception) -> ConfigError:
    """The error of a failed import, with file and line."""
    # a syntax error names its line itself; of others it is the innermost frame's
    place, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (None, None)
    trace = error.__traceback__
    while not place and trace and trace.tb_next:
        trace = trace.tb_next
    if not place and trace:
        place, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
    return ConfigError(
        f"_target_ `{'.'.join(names)}`: importing {name} failed at {place}:{line}: {type(error).__name__}: {error}"
    )


def _suggest(owner: Any, name: str) -> str:
    public = [n for n in dir(owner) if not n.startswith("_")]
    if isinstance(owner, ModuleType):
        own = [n for n in public if not isinstance(getattr(owner, n, None), ModuleType)]
        public = own + [m.name for m in pkgutil.iter_modules(getattr(owner, "__path__", []))]
    return did_you_mean(name, public)
