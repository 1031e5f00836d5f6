"""Writes the part of Fashion-MNIST that ships with hirelc: the same bytes every time.

    python scripts/make_demo_data.py [DIR of the four idx files]

First 6000 training images, the first 1000 of the search-validation images (from 55000), first 2000 test images.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from hirelc.idx import find_idx_files, read_idx

TRAIN, VALIDATION, TEST = 6000, 1000, 2000
VALIDATION_START = 55_000
TARGET = Path(__file__).parents[1] / "src/hirelc/demo_data/fashion_mnist_part.npz"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist")
    x, y, x_test, y_test = (read_idx(path) for path in find_idx_files(folder))
    held = slice(VALIDATION_START, VALIDATION_START + VALIDATION)
    arrays = {
        "x": x[:TRAIN],
        "y": y[:TRAIN],
        "x_val": x[held],
        "y_val": y[held],
        "x_test": x_test[:TEST],
        "y_test": y_test[:TEST],
    }
    # numpy.savez stamps the time of writing and compresses at the default level; this does neither.
    with zipfile.ZipFile(TARGET, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
