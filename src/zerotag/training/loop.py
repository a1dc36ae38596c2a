"""The training loop.

One loop serves all fine-tuning modes (`zerotag.training.modes`): it trains a head, the last part of a backbone with
its head, or a whole network. Under `torchrun` or Ray Train, each process takes its share of every batch. How many there
are may change between epochs: the order of photos, the batches and the schedule do not depend on it.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from zerotag.errors import ZerotagError
from zerotag.files import write_aside
from zerotag.training.heads import log_odds
from zerotag.training.methods import Method, loss

# (ordered rows, epoch) -> batches of (inputs on the device, their rows)
Batches = Callable[[np.ndarray, int], Iterator[tuple[torch.Tensor, np.ndarray]]]


@dataclass(frozen=True)
class TrainSettings:
    """Attributes:
    epochs: passes over the training photos.
    batch: batch size over all processes.
    learning_rate: maximum of the schedule.
    head_learning_rate: likewise for the head's weight, which is not pretrained; None: as for the rest.
    schedule: one-cycle or constant.
    warm_up: share of warm-up steps in one-cycle.
    weight_decay: not applied to biases and normalisation.
    head_first: train the head alone first, as `linear_probe` does; fine-tuning with a random head distorts pretrained
        features (Kumar et al., 2022).
    batch_statistics: whether batch normalisation uses batch statistics; otherwise the pretrained ones.
    pixels: input side (full_fine_tuning).
    cutout: side of the cutout square as a share of the input's; 0 for none (full_fine_tuning).
    moving_average: decay of the weights' exponential moving average, such as 0.9997; 0 for none.
    precision: auto (bf16 or fp16 on a GPU, float32 on the CPU), float32, bf16 or fp16.
    compile: use torch.compile.
    seed: of initialisation, order and augmentation.
    """

    epochs: int = 10
    batch: int = 32
    learning_rate: float = 1e-3
    head_learning_rate: float | None = None
    schedule: str = "one-cycle"
    warm_up: float = 0.1
    weight_decay: float = 3e-4
    head_first: bool = False
    batch_statistics: bool = True
    pixels: int = 224
    cutout: float = 0.5
    moving_average: float = 0.0
    precision: str = "auto"
    compile: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Process:
    """This process's rank among those started by torchrun; a single process otherwise."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes checkpoints and shows progress."""
        return self.rank == 0

    def share(self, batch: int) -> int:
        """This process's share of a batch, in photos."""
        return len(range(self.rank, batch, self.world))


def join_processes() -> tuple[Process, torch.device]:
    """Join the process group if started by torchrun or Ray Train, and select the device."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    if world > 1 and not torch.distributed.is_initialized():  # Ray Train has done it
        torch.distributed.init_process_group("nccl" if gpu else "gloo")
    return Process(rank, world), device


def autocast_type(precision: str, device: torch.device) -> torch.dtype:
    """The autocast dtype.

    Raises:
        ZerotagError: an unknown precision.
    """
    kinds = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision not in kinds:
        raise ZerotagError(f"params.yaml: train precision {precision!r} is unknown; use auto, {', '.join(kinds)}.")
    return kinds[precision]


def parameter_groups(
    network: nn.Module, settings: TrainSettings, head_decay: float | None = None
) -> list[dict[str, object]]:
    """Optimizer groups, with weight decay on weights of two or more dimensions only (not biases or normalisation).

    Args:
        network: a head, or a network with one.
        settings: weight decay and learning rates.
        head_decay: weight decay of the head's weight, if different.
    """
    decay, rate, head_rate = settings.weight_decay, settings.learning_rate, settings.head_learning_rate
    named = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
    head = [weight for name, weight in named if name in ("linear.weight", "head.linear.weight")]
    decayed = [weight for _, weight in named if weight.ndim > 1 and not any(weight is own for own in head)]
    plain = [weight for _, weight in named if weight.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": decay, "lr": rate},
        {
            "params": head,
            "weight_decay": decay if head_decay is None else head_decay,
            "lr": rate if head_rate is None else head_rate,
        },
        {"params": plain, "weight_decay": 0.0, "lr": rate},
    ]


def train(
    network: nn.Module,
    batches: Batches,
    rows: np.ndarray,
    labels: sp.csr_matrix,
    vectors: np.ndarray,
    method: Method,
    settings: TrainSettings,
    checkpoint: Path,
    key: str,
    device: torch.device,
    process: Process = Process(),
    criterion: Callable[..., torch.Tensor] = loss,
    rejected: sp.csr_matrix | None = None,
) -> pd.DataFrame:
    """Train a network in place.

    Args:
        network: inputs -> (B, M, d).
        batches: yields the inputs of rows in order.
        rows: training photos; those without a seen tag are skipped, as their loss is 0.
        labels: (N, S) CSR 0/1 over the seen tags, indexed by rows.
        vectors: (S, d) unit vectors of the seen tags.
        method: the loss.
        settings: hyperparameters.
        checkpoint: a file written after each epoch; a run with the same key resumes from it.
        key: identifies everything the result depends on.
        device: device to train on.
        process: rank of this process.
        criterion: the loss, with the arguments and the result of `zerotag.training.methods.loss`.
        rejected: (N, S) CSR 0/1, seen tags that a person rejected; None for none.

    Returns:
        A table epoch, loss, learning_rate. With a moving average, the network ends up with the averaged weights.

    Raises:
        ZerotagError: no training photo has a seen tag, or the loss is not finite.
    """
    rows = rows[np.diff(labels.indptr)[rows] > 0]
    if not rows.size:
        raise ZerotagError("No training photo has a seen tag. Check split.csv and the tags of the source.")
    network.to(device).train()
    if not settings.batch_statistics:
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
    targets = torch.from_numpy(vectors).to(device)
    steps = math.ceil(rows.size / settings.batch)
    # A wide head's Adam is bound by memory: fused, it takes one pass over the weights, not a dozen.
    optimizer = torch.optim.Adam(parameter_groups(network, settings, method.head_decay), fused=True)
    schedule = _schedule(optimizer, settings, steps * settings.epochs)
    offset = float(log_odds(tag_frequency(labels, rows)).mean())
    kind = autocast_type(settings.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=kind is torch.float16)
    average = None
    if settings.moving_average:
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.moving_average), use_buffers=True)
    curve: list[dict[str, float]] = []
    state: dict[str, Any] = {
        "network": network,
        "optimizer": optimizer,
        "schedule": schedule,
        "scaler": scaler,
        "average": average,
    }
    if (saved := _same_for_all(_read_checkpoint(checkpoint, key) if process.first else None, process)) is not None:
        curve = saved["curve"]
        for name, part in state.items():
            if part is not None:
                part.load_state_dict(saved[name])
    forward: nn.Module = network
    if settings.compile:
        forward = torch.compile(forward)  # type: ignore[assignment]
    if process.world > 1:
        forward = DistributedDataParallel(forward, device_ids=[device.index] if device.type == "cuda" else None)

    for epoch in range(len(curve), settings.epochs):
        order = np.random.default_rng([settings.seed, epoch]).permutation(rows)
        total, seen = torch.zeros((), device=device), 0
        bar = tqdm(total=steps, desc=f"epoch {epoch + 1}/{settings.epochs}", unit="step", disable=not process.first)
        for step, (inputs, chosen) in enumerate(batches(_share(order, settings.batch, process), epoch)):
            wanted = torch.from_numpy(labels[chosen].toarray()).to(device).bool()
            wrong = () if rejected is None else (torch.from_numpy(rejected[chosen].toarray()).to(device).bool(),)
            with torch.autocast(device.type, kind, enabled=kind is not torch.float32):
                principal = forward(inputs)
            value = criterion(principal, wanted, targets, method, offset, *wrong)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            if average is not None:
                average.update_parameters(network)
            total += value.detach() * len(chosen)
            seen += len(chosen)
            if step % 20 == 19:
                # Reading the loss synchronises with the GPU, so not at every step.
                bar.set_postfix(loss=f"{_finite(total / seen, epoch, step, settings):.4f}")
            bar.update()
        bar.close()
        curve.append(
            {
                "epoch": epoch + 1,
                "loss": _finite(total / seen, epoch, steps - 1, settings),
                "learning_rate": float(schedule.get_last_lr()[0]),
            }
        )
        if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
            # The last step can spoil the weights after a loss that was still finite.
            _finite(torch.tensor(math.nan), epoch, steps - 1, settings)
        if process.first:
            parts = {name: part.state_dict() for name, part in state.items() if part is not None}
            with write_aside(checkpoint) as draft:
                torch.save({**parts, "curve": curve, "key": key}, draft)
    if average is not None:
        network.load_state_dict(average.module.state_dict())
    network.eval()
    return pd.DataFrame(curve)


def tag_frequency(labels: sp.csr_matrix, rows: np.ndarray) -> torch.Tensor:
    """Share of photos with each tag, among the photos of `rows` with any tag: (S,) float32."""
    chosen = labels[rows[np.diff(labels.indptr)[rows] > 0]]
    return torch.from_numpy(np.asarray(chosen.mean(axis=0), dtype=np.float32).ravel())


def _schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if settings.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    if settings.schedule == "one-cycle":
        # One more than the steps, as the schedule also advances after the last one. torch divides by the warm-up
        # steps minus one and by the remaining steps: keep both at least one.
        rates = max(3, steps + 1)
        warm_up = min(max(settings.warm_up, 2 / rates), 1 - 1 / rates)
        tops = [group["lr"] for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, tops, total_steps=rates, pct_start=warm_up)
    raise ZerotagError(f"params.yaml: train schedule {settings.schedule!r} is unknown; use one-cycle or constant.")


def _share(order: np.ndarray, batch: int, process: Process) -> np.ndarray:
    """This process's photos of every batch, concatenated.

    All processes must take the same number of steps, or their optimizers diverge. If the last batch has fewer
    photos than processes, some photos go to several processes.
    """
    parts = []
    for start in range(0, order.size, batch):
        whole = order[start : start + batch]
        parts.append(np.resize(whole, max(whole.size, process.world))[process.rank :: process.world])
    return np.concatenate(parts)


def _finite(value: torch.Tensor, epoch: int, step: int, settings: TrainSettings) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ZerotagError(
            f"The loss is {number} in epoch {epoch + 1}, step {step + 1}. Lower the learning rate "
            f"(now {settings.learning_rate}), or train with precision float32."
        )
    return number


def _read_checkpoint(path: Path, key: str) -> dict | None:
    """The checkpoint of an interrupted run with the same key, or None."""
    if not path.is_file():
        return None
    saved = torch.load(path, map_location="cpu", weights_only=True)
    return saved if saved["key"] == key else None


def _same_for_all(saved: dict | None, process: Process) -> dict | None:
    """The checkpoint of the first process, since other machines may not see its latest file yet."""
    if process.world == 1:
        return saved
    holder = [saved]
    torch.distributed.broadcast_object_list(holder)
    return holder[0]


def feature_batches(features: np.ndarray, batch: int, device: torch.device) -> Batches:
    """Batches of cached features or activations, (B, …) float32; the whole array is kept on the device."""
    table = torch.from_numpy(features).to(device)

    def batches(rows: np.ndarray, epoch: int) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        for start in range(0, rows.size, batch):
            chosen = rows[start : start + batch]
            inputs = table[torch.from_numpy(chosen).to(device)].float()
            yield inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs, chosen

    return batches
