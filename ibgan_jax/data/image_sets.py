"""The sets of images that can be prepared, by name. A further one is a file and a line here."""

from __future__ import annotations

from ibgan_jax.data.cars import CARS
from ibgan_jax.data.celeba import CELEBA
from ibgan_jax.data.celeba_hq import CELEBA_HQ
from ibgan_jax.data.chairs3d import CHAIRS3D, CHAIRS3D_RGB
from ibgan_jax.data.folder import FOLDER
from ibgan_jax.data.published import ImageSet
from ibgan_jax.errors import UserError

IMAGE_SETS: dict[str, ImageSet] = {
    image_set.name: image_set
    for image_set in (CELEBA, CELEBA_HQ, CHAIRS3D, CHAIRS3D_RGB, CARS, FOLDER)
}
NAMES = tuple(IMAGE_SETS)


def get(name: str, resolution: int) -> ImageSet:
    """The set `name`. Raises UserError for an unknown one, or a resolution it does not have."""
    if name not in IMAGE_SETS:
        raise UserError(f"unknown set of images {name!r}; it is one of {', '.join(NAMES)}")
    found = IMAGE_SETS[name]
    if resolution not in found.resolutions:
        allowed = ", ".join(str(side) for side in sorted(found.resolutions))
        raise UserError(f"{name} has no resolution {resolution!r}; it is one of {allowed}")
    return found
