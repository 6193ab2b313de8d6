"""The capstone's 5-layer CNN."""

from collections.abc import Sequence

from torch import Tensor, nn

from cxr.errors import UserError


class CNN(nn.Module):
    """Three blocks of convolution 3x3, max-pool and ReLU, then two fully connected layers.

    Args:
        n_classes: number of logits.
        image_size: side of the images in pixels; the first fully connected layer's width depends on it.
        widths: channels of the three convolutions.
        hidden: width of the layer between the two fully connected ones.
        mean, std: are subtracted from pixels, and divide them, before the first convolution. Without this a network
            that has no batch normalisation may not learn for many epochs: pixels, all positive, move all weights of
            the first convolution in the same direction (LeCun et al. 1998, "Efficient BackProp", 4.3). The defaults
            leave the pixels as they are, as in checkpoints from before these arguments.

    Images (B, 1, S, S), float from 0 to 1, become logits (B, n_classes).

    Raises:
        UserError: nothing is left of an image after the poolings.
    """

    def __init__(
        self,
        n_classes: int,
        image_size: int,
        widths: Sequence[int],
        hidden: int,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        blocks: list[nn.Module] = []
        for before, width in zip([1, *widths], widths, strict=False):
            # ReLU after the pooling, not before it: both orders give the same figures and gradients to the bit, and
            # ReLU then has a quarter of the work.
            blocks += [nn.Conv2d(before, width, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
        side = image_size // 2 ** len(widths)
        if side < 1:
            raise UserError(f"data.image_size={image_size}: too small for {len(widths)} poolings (model.widths)")
        self.features = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(widths[-1] * side**2, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, n_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features((images - self.mean) / self.std))
