"""What people see: sample grids, traversals, curves and a page that holds them all.

Only `views` knows of models; the rest takes NumPy arrays and records and makes files.
"""

from ibgan_jax.reports.curves import SHARE_NAMES, best_and_median, convergence_figure, curves_figure
from ibgan_jax.reports.figures import (
    ACTIVE_NATS,
    matrix_figure,
    save_png,
    tile,
    traversal_figure,
    traversal_image,
)
from ibgan_jax.reports.html import CAPTIONS, write_report
from ibgan_jax.reports.spread import spread_figure, sweep_figure
from ibgan_jax.reports.views import (
    ROW,
    STARTS,
    TRAVERSAL,
    reconstructions,
    samples,
    traversals,
    unlike,
)

__all__ = [
    "ACTIVE_NATS",
    "CAPTIONS",
    "ROW",
    "SHARE_NAMES",
    "STARTS",
    "TRAVERSAL",
    "best_and_median",
    "convergence_figure",
    "curves_figure",
    "matrix_figure",
    "reconstructions",
    "samples",
    "save_png",
    "spread_figure",
    "sweep_figure",
    "tile",
    "traversal_figure",
    "traversal_image",
    "traversals",
    "unlike",
    "write_report",
]
