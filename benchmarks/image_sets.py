"""Images to search on without a download: scikit-learn's digits, and distorted crops of photographs that ship with it.

Every set is made by a seed: the same files on every machine with the same libraries. Each writes PNG files into
``train/<class>`` and ``test/<class>``; the test files judge, and no system sees them while it learns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Pixels = NDArray[np.uint8]

CROP = 32
"""Pixels a side of a crop."""

LEAST_CONTRAST = 0.06
"""Standard deviation of the brightness of a crop: what shows less is a piece of sky or table, of no photograph."""

PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "motorcycle_left", "rocket",
)  # fmt: skip
"""Those of scikit-image that are in its package; scikit-learn brings two more."""


def write_digits(folder: Path) -> None:
    """Writes scikit-learn's 1,797 scanned digits, 8 x 8 grey; a quarter of each class judges."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    _write(folder, list(zip(pixels, map(str, digits.target), strict=True)), test_share=0.25)


def write_crops(folder: Path, *, num_each: int = 250) -> None:
    """Writes crops of twelve photographs, 32 x 32 in colour, turned, scaled, recoloured, blurred and noisy.

    Args:
        folder: Where to.
        num_each: Crops of every photograph; a fifth of them judges.
    """
    rng = np.random.default_rng(20)
    photographs = _photographs()
    crops = [(_distorted(image, rng), name) for name, image in photographs.items() for _ in range(num_each)]
    _write(folder, crops, test_share=0.2)


SETS: Mapping[str, Callable[[Path], None]] = {"digits": write_digits, "crops": write_crops}
"""Name of a set -> what writes it into a folder."""


def read(folder: Path) -> tuple[Pixels, list[str]]:
    """Returns the images (num_images, height, width, channels) and classes of ``folder/<class>/*.png``."""
    files = sorted(folder.rglob("*.png"))
    pixels = np.stack([np.atleast_3d(np.asarray(Image.open(file))) for file in files])
    return pixels, [file.parent.name for file in files]


def _photographs() -> dict[str, Pixels]:
    """Returns the photographs in colour, the shorter side 256 pixels."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    found = dict(zip(("china", "flower"), load_sample_images().images, strict=True))
    shipped = Path(skimage.data.__file__).parent
    for name in PHOTOGRAPHS:
        (file,) = [path for path in shipped.glob(f"{name}.*") if path.suffix in (".png", ".jpg")]
        found[name] = np.asarray(Image.open(file).convert("RGB"))
    return {name: _shortened(image) for name, image in sorted(found.items())}


def _shortened(image: Pixels) -> Pixels:
    height, width = image.shape[:2]
    scale = 256 / min(height, width)
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _distorted(photograph: Pixels, rng: np.random.Generator) -> Pixels:
    """Returns one crop of a photograph after strong distortions, of a place where there is something to see."""
    crop = _turned(photograph, rng)
    while crop.mean(axis=-1).std() < LEAST_CONTRAST:
        crop = _turned(photograph, rng)
    if rng.random() < 0.5:
        crop[:] = crop.mean(axis=-1, keepdims=True)
    crop = crop ** np.exp(rng.uniform(-0.7, 0.7)) * rng.uniform(0.6, 1.2, 3)
    crop = ndimage.gaussian_filter(crop, (rng.uniform(0.0, 1.0),) * 2 + (0,))
    crop = crop + rng.normal(scale=rng.uniform(0.0, 0.12), size=crop.shape)
    return np.asarray(np.rint(255 * np.clip(crop, 0.0, 1.0)), dtype=np.uint8)


def _turned(photograph: Pixels, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns a crop (CROP, CROP, 3) in [0, 1], turned by up to 60 degrees and scaled by 0.6 to 2."""
    angle, zoom = rng.uniform(-np.pi / 3, np.pi / 3), np.exp(rng.uniform(-0.5, 0.7))
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    turn = np.array([[cosine, -sine], [sine, cosine]])
    reach = CROP / 2 * np.sqrt(2) / zoom
    middle = [rng.uniform(reach, side - reach) for side in photograph.shape[:2]]
    offset = np.asarray(middle) - turn @ np.full(2, (CROP - 1) / 2)
    channels = [
        ndimage.affine_transform(photograph[..., channel].astype(np.float64), turn, offset, (CROP, CROP), order=1)
        for channel in range(3)
    ]
    return np.clip(np.stack(channels, axis=-1) / 255.0, 0.0, 1.0)


def _write(folder: Path, images: list[tuple[Pixels, str]], *, test_share: float) -> None:
    """Writes images with their classes; a share of each class, drawn once, into the part that judges."""
    rng = np.random.default_rng(21)
    for name in sorted({name for _, name in images}):
        own = [pixels for pixels, other in images if other == name]
        judging = set(rng.permutation(len(own))[: round(test_share * len(own))].tolist())
        for number, pixels in enumerate(own):
            target = folder / ("test" if number in judging else "train") / name / f"{number:04}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(target)
