"""AutoAugment's policy for CIFAR-10, with Pillow.

The 25 sub-policies are those that Cubuk et al. 2019 (arXiv:1805.09501v3, appendix) print for
CIFAR-10: two operations, each with a probability and a strength from 0 to 9. Strengths divide the
paper's ranges evenly, 9 being the end of a range that changes an image most, and what has two
directions draws one: shear ±0.3, translation ±150/331 of the extent, rotation ±30 degrees, factors
of colour, contrast, brightness and sharpness 1 ± 0.9, 8 to 4 bits, inversion of what is not below
256 to 0. The paper leaves open what moves in and how pixels are interpolated: grey (128), the
nearest pixel, and cubic interpolation for shears, as spiking networks are commonly trained.

Kornia's version, which works on tensors, is another policy: it draws one sub-policy for a whole
batch, and its strengths divide a signed range, so that a weak rotation is one by −15 degrees.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

# An operation has a name, a probability in tenths and a strength.
_TABLE = """
Invert 1 7 Contrast 2 6; Rotate 7 2 TranslateX 3 9; Sharpness 8 1 Sharpness 9 3;
ShearY 5 8 TranslateY 7 9; AutoContrast 5 8 Equalize 9 2; ShearY 2 7 Posterize 3 7;
Color 4 3 Brightness 6 7; Sharpness 3 9 Brightness 7 9; Equalize 6 5 Equalize 5 1;
Contrast 6 7 Sharpness 6 5; Color 7 7 TranslateX 5 8; Equalize 3 7 AutoContrast 4 8;
TranslateY 4 3 Sharpness 2 6; Brightness 9 6 Color 2 8; Solarize 5 2 Invert 0 3;
Equalize 2 0 AutoContrast 6 0; Equalize 2 8 Equalize 6 4; Color 9 9 Equalize 6 6;
AutoContrast 8 4 Solarize 2 8; Brightness 1 3 Color 7 0; Solarize 4 5 AutoContrast 9 3;
TranslateY 9 9 TranslateY 7 9; AutoContrast 9 2 Solarize 8 3; Equalize 8 8 Invert 1 3;
TranslateY 7 9 AutoContrast 9 1
"""
GREY = (128, 128, 128)
# The paper's 150 pixels are of images of 331.
MOST_TRANSLATION = 150 / 331

Operation = tuple[str, float, int]


def _rows() -> tuple[tuple[Operation, Operation], ...]:
    rows = []
    for row in _TABLE.split(";"):
        a, p, s, b, q, r = row.split()
        rows.append(((a, int(p) / 10, int(s)), (b, int(q) / 10, int(r))))
    return tuple(rows)


POLICY = _rows()


def _affine(image: Image.Image, *matrix: float, cubic: bool = False) -> Image.Image:
    """Pixel (x, y) taken from (a·x + b·y + c, d·x + e·y + f)."""
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        resample=Image.Resampling.BICUBIC if cubic else Image.Resampling.NEAREST,
        fillcolor=GREY,
    )


# Of an image and a strength as a part of its range, −1 to 1.
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "ShearX": lambda image, s: _affine(image, 1, 0.3 * s, 0, 0, 1, 0, cubic=True),
    "ShearY": lambda image, s: _affine(image, 1, 0, 0, 0.3 * s, 1, 0, cubic=True),
    "TranslateX": lambda image, s: _affine(
        image, 1, 0, MOST_TRANSLATION * s * image.width, 0, 1, 0
    ),
    "TranslateY": lambda image, s: _affine(
        image, 1, 0, 0, 0, 1, MOST_TRANSLATION * s * image.height
    ),
    "Rotate": lambda image, s: image.rotate(30 * s, fillcolor=GREY),
    "Color": lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.9 * s),
    "Contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s),
    "Brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s),
    "Sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s),
    "Posterize": lambda image, s: ImageOps.posterize(image, round(8 - 4 * abs(s))),
    "Solarize": lambda image, s: ImageOps.solarize(image, round(256 * (1 - abs(s)))),
    "AutoContrast": lambda image, s: ImageOps.autocontrast(image),
    "Equalize": lambda image, s: ImageOps.equalize(image),
    "Invert": lambda image, s: ImageOps.invert(image),
}


def auto_augmented(images: Tensor) -> Tensor:
    """Each image [B, 3, H, W], RGB from 0 to 255, by a sub-policy of its own.

    Floating images are rounded to bytes on the way. The same number of draws is taken from
    torch's generator whatever happens.
    """
    count = len(images)
    rows = torch.randint(len(POLICY), (count,)).tolist()
    chances = torch.rand(count, 2, dtype=torch.float64).tolist()
    signs = (torch.randint(2, (count, 2)) * 2 - 1).tolist()
    pixels = images.cpu()
    if pixels.dtype != torch.uint8:
        pixels = pixels.round().clamp(0, 255).to(torch.uint8)
    done = torch.empty_like(pixels)
    for n, (row, chance, sign) in enumerate(zip(rows, chances, signs, strict=True)):
        image = Image.fromarray(pixels[n].permute(1, 2, 0).contiguous().numpy())
        for (name, probability, strength), draw, side in zip(
            POLICY[row], chance, sign, strict=True
        ):
            if draw < probability:
                image = OPERATIONS[name](image, side * strength / 9)
        raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        done[n] = raw.reshape(image.height, image.width, 3).permute(2, 0, 1)
    return done.to(images)
