"""Flip, rotation and crop of a whole batch as one affine warp, on whatever device the batch is on."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

DRAWS = 4  # flip, angle, shift along x, shift along y


class Augment:
    """Random horizontal flip, then rotation, then crop, each drawn per image.

    The crop is torchvision's RandomCrop(size, padding): the image is padded on every side, then cropped back to its
    size at random, so that its scale stays that of validation and test images, which are not augmented.

    Args:
        flip: probability of a horizontal flip.
        degrees: the angle is uniform in [-degrees, degrees].
        crop: padding on each side before the crop, as a share of the image's side.
    """

    def __init__(self, flip: float, degrees: float, crop: float) -> None:
        self.flip, self.degrees, self.crop = flip, degrees, crop

    def __bool__(self) -> bool:
        """Whether images are changed at all."""
        return bool(self.flip or self.degrees or self.crop)

    def draw_maps(self, index: Tensor, size: int, seed: int, epoch: int) -> Tensor:
        """Draw the augmentation of each image in an epoch.

        Args:
            index: int64 tensor of shape (N,), each image's row in the table. The draws depend on it, seed and epoch
                alone, so neither worker count, batch order nor a restart changes them.
            size: side of the images in pixels.

        Returns:
            The maps from output to input positions, in grid_sample's units (-1 to 1): float32, shape (N, 2, 3). Output
            → input undoes the operations from last to first: crop (a shift by whole pixels), rotation, flip.
        """
        u = uniform(index, seed, epoch)
        mirror = torch.where(u[:, 0] < self.flip, -1.0, 1.0)
        angle = (2 * u[:, 1] - 1) * math.radians(self.degrees)
        pad = round(self.crop * size)
        shift = (torch.floor(u[:, 2:] * (2 * pad + 1)) - pad) * (2 / size)
        cos, sin = angle.cos(), angle.sin()
        # A positive angle turns the image counter-clockwise, as torchvision's rotate() does (y points down).
        rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
        offset = rotation @ shift[:, :, None]
        matrix = torch.cat([rotation, offset], 2)
        return torch.cat([matrix[:, :1] * mirror[:, None, None], matrix[:, 1:]], 1)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Warp each image by its map from output to input positions.

    Args:
        images: float tensor of shape (B, C, S, S).
        matrices: what Augment.draw_maps() returned for them, shape (B, 2, 3).

    Returns:
        float tensor of shape (B, C, S, S), bilinear; what lies outside of an image is black.
    """
    # The same grid as torch's affine_grid with align_corners=False, which on a CPU takes longer than the sampling: of
    # x and y each only its own column of the matrix matters, so two small products are added up for all pixels at once.
    size = images.shape[-1]
    centres = torch.linspace(1 / size - 1, 1 - 1 / size, size, device=images.device)
    along_x = centres[:, None] * matrices[:, None, :, 0] + matrices[:, None, :, 2]
    along_y = centres[:, None] * matrices[:, None, :, 1]
    grid = along_x[:, None] + along_y[:, :, None]
    return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)


def uniform(index: Tensor, seed: int, epoch: int, draws: int = DRAWS) -> Tensor:
    """Uniform numbers in [0, 1) that are a pure function of (seed, epoch, index of the image, number of the draw).

    A counter-based generator: SplitMix64's output function (Steele, Lea & Flood 2014) over the mixed counter.

    Returns:
        float32 tensor of shape (len(index), draws) on index's device.
    """
    key = mix(mix(torch.tensor(seed, device=index.device)) + epoch)
    counter = mix(mix(key + index)[:, None] + torch.arange(draws, device=index.device))
    return shift_right(counter, 40).float() * 2.0**-24


def mix(x: Tensor) -> Tensor:
    """SplitMix64's step and output function on int64 tensors, whose products wrap around as the original's do."""
    x = x + -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed number
    x = (x ^ shift_right(x, 30)) * -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
    x = (x ^ shift_right(x, 27)) * -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB
    return x ^ shift_right(x, 31)


def shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's >> drags the sign bit of an int64 along."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
