"""Unsupervised anomaly detection in medical images: CCD pretraining and one-class detectors on Lightning."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccd_lightning.modules.loading import load

__all__ = ["__version__", "load"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Imports `load` lazily, because it imports torch and `ccd --help` needs neither."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ccd_lightning.modules.loading import load

    return load
