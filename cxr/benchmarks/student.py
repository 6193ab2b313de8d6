"""The training loop that a student would write, to compare with."""

import os
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from cxr.benchmarks.stopwatch import Stopwatch, gpu_memory


def student(spec: dict[str, Any]) -> dict[str, Any]:
    """The loop that a student would write: ImageFolder, torchvision's transforms image by image, a DataLoader with as
    many workers as there are cores, three channels, fp32, Adam, and the loss read in every step."""
    config = spec["config"]
    size, aug = config["data"]["image_size"], config["aug"]
    steps: list[Any] = [transforms.Resize((size, size))]
    if aug["flip"] or aug["degrees"] or aug["crop"]:
        steps += [
            transforms.RandomHorizontalFlip(aug["flip"]),
            transforms.RandomRotation(aug["degrees"]),
            transforms.RandomCrop(size, padding=round(aug["crop"] * size)),
        ]
    folder = Path(spec["images_root"])
    folder = folder / "train" if (folder / "train").is_dir() else folder
    dataset = ImageFolder(str(folder), transforms.Compose([*steps, transforms.ToTensor()]))
    loader = DataLoader(dataset, batch_size=config["data"]["batch_size"], shuffle=True, num_workers=os.cpu_count() or 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = STUDENTS_NETWORKS[spec["model"]](len(dataset.classes), size).to(device)
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), lr=0.001)
    watch = Stopwatch(spec["warm_up"], spec["seconds"])
    net.train()
    while True:
        running_loss = 0.0
        watch.begin_epoch()
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            if watch.step(len(labels)):
                watch.end_epoch()
                return watch.result() | gpu_memory()
        watch.end_epoch()


def students_cnn(n_classes: int, size: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128 * (size // 8) ** 2, 128), nn.ReLU(), nn.Linear(128, n_classes),
    )  # fmt: skip


STUDENTS_NETWORKS = {
    "cnn": students_cnn,
    "resnet18": lambda n_classes, size: torchvision.models.resnet18(num_classes=n_classes),
}
