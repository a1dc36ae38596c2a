"""Training augmentation: reproducible RandAugment and Cutout."""

import numpy as np
import torch
from torchvision.transforms import v2

from zerotag.data.dataset import Dataset
from zerotag.training.features import Photos, input_transform


def cutout(picture: torch.Tensor, share: float) -> torch.Tensor:
    """Replace a random square by grey (DeVries and Taylor, 2017).

    Args:
        picture: (3, S, S) in [0, 1].
        share: the square's side as a share of S; it may extend beyond the border.
    """
    side = picture.shape[-1]
    half = int(side * share / 2)
    row, column = (int(place) for place in torch.randint(side, (2,)))
    picture[:, max(0, row - half) : row + half, max(0, column - half) : column + half] = 0.5
    return picture


class TrainingPhotos(Photos):
    """Augmented photos of one epoch, in the order of `rows`.

    The augmentation of a photo depends only on (seed, epoch, row), not on the number of workers or on
    interruptions.
    """

    def __init__(self, dataset: Dataset, rows: np.ndarray, size: int, cutout_share: float, seed: int, epoch: int):
        resize = input_transform(size)
        super().__init__(dataset, rows, v2.Compose([v2.RandomHorizontalFlip(), v2.RandAugment(), resize]))
        self.cutout_share = cutout_share
        self.seed = seed
        self.epoch = epoch

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with torch.random.fork_rng(devices=[]):
            entropy = np.random.SeedSequence([self.seed, self.epoch, int(self.rows[index])])
            torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
            picture, row = super().__getitem__(index)
            return (cutout(picture, self.cutout_share) if self.cutout_share else picture), row
