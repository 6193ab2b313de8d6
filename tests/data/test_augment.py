import math

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from cxr.data.augment import Augment, uniform, warp

SIZE = 64


@pytest.fixture
def images():
    """Smooth images, on which two bilinear interpolations differ little, not the same left and right or up and down."""
    noise = torch.rand(16, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)


def test_equals_torchvision_flip_then_rotation_then_crop_image_by_image(images):
    augment = Augment(flip=0.5, degrees=10, crop=0.1)
    index = torch.arange(100, 116)
    warped = warp(images, augment.draw_maps(index, SIZE, seed=3, epoch=2))
    u = uniform(index, seed=3, epoch=2)
    pad = round(0.1 * SIZE)
    assert 0 < (u[:, 0] < 0.5).sum() < 16, "both flipped and unflipped images are wanted here"
    for image, got, (flip, angle, x, y) in zip(images, warped, u.tolist(), strict=True):
        want = tv.horizontal_flip(image) if flip < 0.5 else image
        want = tv.rotate(want, (2 * angle - 1) * 10, interpolation=InterpolationMode.BILINEAR)
        left, top = (math.floor(v * (2 * pad + 1)) for v in (x, y))
        want = tv.crop(tv.pad(want, [pad]), top, left, SIZE, SIZE)
        # Where the image ends, one interpolation mixes with black and the other does not: the inside is compared.
        inside = torch.nn.functional.max_pool2d((want == 0).float(), 5, 1, 2) == 0
        assert (got - want)[inside].abs().max() < 0.01
        assert inside.float().mean() > 0.5


def test_warp_is_torchs_own_affine_grid_and_sampling(images):
    matrices = Augment(flip=0.5, degrees=10, crop=0.1).draw_maps(torch.arange(16), SIZE, seed=0, epoch=0)
    grid = torch.nn.functional.affine_grid(matrices, list(images.shape), align_corners=False)
    want = torch.nn.functional.grid_sample(images, grid, align_corners=False)
    assert (warp(images, matrices) - want).abs().max() < 1e-4


def test_draws_depend_on_seed_epoch_and_image_alone():
    augment = Augment(flip=0.5, degrees=10, crop=0.1)
    index = torch.arange(16)

    def draw(index, seed=0, epoch=0):
        return augment.draw_maps(index, SIZE, seed, epoch)

    whole = draw(index)
    assert torch.equal(whole, draw(index.flip(0)).flip(0))
    assert torch.equal(whole, torch.cat([draw(index[i : i + 4]) for i in range(0, 16, 4)]))
    assert not torch.equal(whole, draw(index, seed=1))
    assert not torch.equal(whole, draw(index, epoch=1))
    assert not torch.equal(whole, draw(index + 1))


def test_draws_are_uniform_and_independent():
    u = uniform(torch.arange(20_000), seed=5, epoch=7).double()
    assert u.min() >= 0 and u.max() < 1
    assert (u.mean(0) - 0.5).abs().max() < 0.01
    assert (u.var(0) - 1 / 12).abs().max() < 0.002
    others = uniform(torch.arange(20_000), seed=5, epoch=8).double()
    correlation = torch.corrcoef(torch.cat([u, others, u.roll(1, 0)], 1).T) - torch.eye(12)
    assert correlation.abs().max() < 0.03


def test_counter_follows_splitmix64():
    """The first outputs of the published generator from state 0."""
    from cxr.data.augment import mix

    golden = -0x61C8864680B583EB
    got = [x % 2**64 for x in mix(torch.arange(3) * golden).tolist()]
    assert got == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_off_is_off():
    assert not Augment(flip=0, degrees=0, crop=0)
    assert Augment(flip=0, degrees=1, crop=0)
