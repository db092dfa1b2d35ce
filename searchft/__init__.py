"""searchft: finds the fine-tuning of a pretrained image classifier that works best on your own images.

    import searchft

    space = searchft.load_space("spaces/quickstart.yaml")
    study = searchft.run(space)                      # a search, to its end; again: goes on
    folder = study.export("winner")
    searchft.predict(folder, "photo.jpg")

`fit` trains one configuration, `load_model` gives an exported network as a plain torch module. Names are loaded on first
use: importing searchft imports neither torch nor Optuna. See docs/python.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from searchft._version import __version__

if TYPE_CHECKING:
    from searchft.api import FinishedStudy, fit, load_model, load_space, predict, run

__all__ = ["FinishedStudy", "__version__", "fit", "load_model", "load_space", "predict", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from searchft import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
