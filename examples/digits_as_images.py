"""Write scikit-learn's 1,797 scans of handwritten digits as PNG files, a folder for each digit.

python examples/digits_as_images.py runs/digits
tamiz search runs/digits --time 2m
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def main(folder: str) -> None:
    scans, digits = load_digits(return_X_y=True)
    for number, (scan, digit) in enumerate(zip(scans, digits, strict=True)):
        path = Path(folder, str(digit), f"{number:04d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        # The scans have 17 levels of grey, the files 256.
        Image.fromarray(np.round(scan.reshape(8, 8) * 255 / 16).astype(np.uint8)).save(path)
    print(f"{len(digits):,} images are in {folder}")


if __name__ == "__main__":
    main(sys.argv[1])
