"""Images packed as residuals of the median-edge predictor: ``*.med.xz``.

An xz stream of ``MED1``, the number, height and width of the images (32-bit, little-endian), and
one byte for each of [N, 3, H, W]. The planes are G, R − G + 128 and B − G + 128, all mod 256. Each
sample is predicted from its left, upper and upper left neighbour a, b, c: by a + b − c, kept
between min(a, b) and max(a, b); in the first row by a, in the first column by b, at the corner by
128. The residual e mod 256, taken as signed, is stored as 2e for e ≥ 0, else as −2e − 1.
"""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_deploy.nn.datasets.sources import damaged

HEADER = 16


def read_med(path: Path, most: int) -> NDArray[np.uint8]:
    """RGB images uint8 [N, 3, 32, 32] from a packed file.

    Parameters
    ----------
    most : images that there may be; more are not unpacked.

    Raises
    ------
    SnnDeployError
        SD401 if the file is damaged or claims to hold more.
    """
    try:
        with lzma.open(path) as stream:
            header = stream.read(HEADER)
            if len(header) != HEADER or header[:4] != b"MED1":
                raise damaged(path, "not a MED1 file")
            count, height, width = (int(v) for v in np.frombuffer(header, "<u4", offset=4))
            if (height, width) != (32, 32) or not 1 <= count <= most:
                raise damaged(
                    path,
                    f"{count} images of {height}x{width}: at most {most} of 32x32 are expected",
                )
            size = count * 3 * height * width
            content = stream.read(size + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise damaged(path, str(error)) from None
    if len(content) != size:
        raise damaged(path, f"its header claims {size} bytes, it holds {len(content)} or more")
    return decode(np.frombuffer(content, np.uint8).reshape(count, 3, height, width))


def decode(residuals: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB images uint8 [N, 3, H, W] from their residuals; all images pixel by pixel, side by side.

    int16 holds every sum: a + b − c lies in [−255, 510].
    """
    count, _, height, width = residuals.shape
    stored = np.ascontiguousarray(residuals.reshape(count, 3, -1).transpose(2, 1, 0), np.int16)
    error = ((stored >> 1) ^ -(stored & 1)).reshape(height, width, 3, count)
    planes = np.empty_like(error)
    for y in range(height):
        for x in range(width):
            if y and x:
                a, b, c = planes[y, x - 1], planes[y - 1, x], planes[y - 1, x - 1]
                guess = a + b
                guess -= c
                np.maximum(guess, np.minimum(a, b), out=guess)
                np.minimum(guess, np.maximum(a, b), out=guess)
                guess += error[y, x]
            elif x:
                guess = planes[y, x - 1] + error[y, x]
            elif y:
                guess = planes[y - 1, x] + error[y, x]
            else:
                guess = error[y, x] + np.int16(128)
            np.bitwise_and(guess, 255, out=planes[y, x])
    green = planes[:, :, 0]
    for other in (1, 2):
        planes[:, :, other] += green
        planes[:, :, other] -= 128
        planes[:, :, other] &= 255
    coloured = planes.astype(np.uint8)[:, :, [1, 0, 2]]
    return np.ascontiguousarray(coloured.transpose(3, 2, 0, 1))
