"""The methods: scores and losses of principal vectors.

The formulas are those of Ben-Cohen et al., "Semantic Diversity Learning for Zero-Shot Multi-label
Classification" (ICCV 2021), and of Zhang, Gong and Shah, "Fast Zero-Shot Image Tagging" (CVPR 2016). `sdl_plus` is
our own: one vector per photo, in the space of lifted words, trained with cross-entropy.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch.autograd.function import FunctionCtx
from torch.nn.functional import softplus

from zerotag.errors import ZerotagError
from zerotag.settings import from_params

Kind = Literal["trained", "classifier", "conse"]

# How much a rejected tag counts as a negative, beyond what every absent tag does.
REJECTED = 3.0
# Scores and pairs are computed in blocks of this many numbers: a CPU's cache holds one, a GPU needs more to be busy.
_BLOCK, _GPU_BLOCK = 2**16, 2**24


@dataclass(frozen=True)
class Method:
    """Attributes:
    principal_vectors: M, the number of principal vectors per photo.
    regularisation: lambda, the weight of the variance loss against the ranking loss, in [0, 1].
    diversity_weight: weigh a photo by the variance of its tags' word vectors.
    per_negative: divide the ranking loss by the number of negatives as well.
    cross_entropy: binary cross-entropy per tag instead of ranking; makes scores comparable across photos.
    sharpness: of the lift of the word vectors (`zerotag.words.lift`), one or several; empty for no lift.
    standardise: apply the head to standardised square roots of the features.
    prior: give the head a bias, initialised from the tag frequencies.
    head_decay: weight decay of the head's weight; None: as for the rest of the network.
    trust: how much unseen words rely on the backbone's own classifier, whose classes are further anchors of the lift:
        the spread of the classes' scores, in units of the seen tags'; 0: not at all. Seen tags are scored by the
        trained head alone.
    kind: `trained`; or, without any training, `classifier` (the backbone's own, lifted to any word by `sharpness`) or
        `conse` (Norouzi et al., ICLR 2014), the published baseline.
    """

    principal_vectors: int = 7
    regularisation: float = 0.3
    diversity_weight: bool = True
    per_negative: bool = False
    cross_entropy: bool = False
    sharpness: tuple[float, ...] = ()
    standardise: bool = False
    prior: bool = False
    head_decay: float | None = None
    trust: float = 0.0
    kind: Kind = "trained"

    @property
    def trained(self) -> bool:
        """Whether there is anything to train."""
        return self.kind == "trained"

    @property
    def needs_classifier(self) -> bool:
        """Whether the backbone must come with a classifier."""
        return not self.trained or self.trust > 0


METHODS: dict[str, Method] = {
    "sdl_plus": Method(
        principal_vectors=1,
        regularisation=0.0,
        diversity_weight=False,
        cross_entropy=True,
        sharpness=(2.0, 4.0, 8.0),
        standardise=True,
        prior=True,
        head_decay=0.1,
        trust=0.5,
    ),
    "sdl": Method(),
    "fast0tag": Method(principal_vectors=1, regularisation=0.0, diversity_weight=False, per_negative=True),
    "classifier": Method(principal_vectors=1, sharpness=(2.0, 4.0, 8.0), kind="classifier"),
    "conse": Method(principal_vectors=1, kind="conse"),
}


def method(name: str, changes: dict[str, object] | None = None) -> Method:
    """A registered method, with some parameters overridden.

    Raises:
        ZerotagError: an unknown name or parameter, or a value out of range.
    """
    if name not in METHODS:
        raise ZerotagError(f"params.yaml: method {name!r} is unknown; use {', '.join(METHODS)}.")
    chosen = from_params(Method, {**asdict(METHODS[name]), **(changes or {})}, f"method.{name}")
    if chosen.principal_vectors < 1:
        raise ZerotagError(f"params.yaml: method.{name}.principal_vectors must be 1 or more.")
    if not 0 <= chosen.regularisation <= 1:
        raise ZerotagError(f"params.yaml: method.{name}.regularisation must be in [0, 1].")
    if chosen.trust < 0 or (chosen.trust and not chosen.sharpness):
        raise ZerotagError(
            f"params.yaml: method.{name}.trust must be 0 or more, and 0 without a sharpness, as classes are anchors of "
            "the lift."
        )
    return chosen


def score(principal: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Score of each tag: the maximum dot product of its vector with the principal vectors.

    Args:
        principal: (B, M, d).
        vectors: (T, d) unit word vectors, constants: they get no gradient.

    Returns:
        (B, T).
    """
    return _Score.apply(principal, vectors)[0]


class _Score(torch.autograd.Function):
    """`score`, and the summed unbiased variance of the principal vectors, (B,), which shares the gradient's memory.

    Tags are computed in blocks: of the (B, M, T) products, only the largest and their places m are kept. Where several
    principal vectors share the largest product, one of them gets the gradient.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, principal: torch.Tensor, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        photos, rows, _ = principal.shape
        flat = principal.flatten(0, 1)
        scores = principal.new_empty(photos, len(vectors))
        kind = torch.uint8 if rows <= 256 else torch.int32
        places = torch.empty_like(scores, dtype=kind)
        numbers = torch.arange(rows, dtype=kind, device=scores.device)[:, None]
        for tags in _blocks(len(vectors), len(flat), scores.device):
            products = (flat @ vectors[tags].T).unflatten(0, (photos, rows))
            best = products.amax(dim=1, keepdim=True)
            scores[:, tags] = best[:, 0]
            # A tenth of the time of torch.max, which also finds the places.
            places[:, tags] = (products == best).view(torch.uint8).mul(numbers).amax(dim=1)
        mean = principal.mean(dim=1)
        squares = principal.new_zeros(photos)
        for row in principal.unbind(dim=1):
            squares += (row - mean).square_().sum(dim=1)
        ctx.save_for_backward(places, vectors, principal)
        return scores, squares / max(1, rows - 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, of_variance: torch.Tensor) -> tuple[torch.Tensor, None]:
        _once()
        places, vectors, principal = ctx.saved_tensors
        photos, rows, _ = principal.shape
        weight = of_variance[:, None, None] * 2 / max(1, rows - 1)
        total = (principal - principal.mean(dim=1, keepdim=True)).mul_(weight).contiguous()
        for tags in _blocks(len(vectors), photos * rows, total.device):
            own = gradient[:, None, tags]
            spread = own.new_zeros(photos, rows, own.shape[2]).scatter_(1, places[:, None, tags].long(), own)
            total.view(photos * rows, -1).addmm_(spread.flatten(0, 1), vectors[tags])
            del spread  # before the next one is made
        return total, None


def _blocks(rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """Slices of `rows` rows of `width` numbers."""
    size = max(1, (_BLOCK if device.type == "cpu" else _GPU_BLOCK) // max(1, width))
    return (slice(start, start + size) for start in range(0, rows, size))


class _Known(torch.autograd.Function):
    """Values of photos, (B,), whose gradients with respect to their scores, (B, T), were computed with them."""

    @staticmethod
    def forward(ctx: FunctionCtx, scores: torch.Tensor, values: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gradients)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        _once()
        return ctx.saved_tensors[0] * gradient[:, None], None, None


def _once() -> None:
    """Gradients are constants to autograd: a second derivative would silently lack them."""
    if torch.is_grad_enabled():
        raise ZerotagError("The loss has no second derivative: call backward without create_graph=True.")


def diversity_weight(labels: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """1 + the summed unbiased variance of the word vectors of a photo's tags; 1 for fewer than two tags.

    Args:
        labels: (B, T) bool.
        vectors: (T, d).

    Returns:
        (B,).
    """
    photo, tag = labels.nonzero(as_tuple=True)
    count = torch.bincount(photo, minlength=len(labels)).to(vectors.dtype)
    own = vectors[tag]
    mean = vectors.new_zeros(len(labels), vectors.shape[1]).index_add_(0, photo, own)
    mean /= count.clamp(min=1)[:, None]
    # Two passes, as the difference of two large sums loses precision.
    squares = own.sub_(mean[photo]).square_().sum(dim=1)
    return 1 + squares.new_zeros(len(labels)).index_add(0, photo, squares) / (count - 1).clamp(min=1)


def _softplus_(x: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(x)), summed over the rows of (n, T); x becomes the derivative.

    max(x, 0) - log(sigmoid(|x|)) cannot overflow, and takes a tenth of the time of torch's, whose log1p is slow.
    """
    values = x.clamp(min=0).sum(dim=1)
    values -= x.abs().sigmoid_().log_().sum(dim=1)
    x.sigmoid_()
    return values


def ranking_loss(scores: torch.Tensor, labels: torch.Tensor, per_negative: bool) -> torch.Tensor:
    """RankNet over all pairs of a positive and a negative tag, divided by the number of positives.

    Each positive of the batch is a row of a (positives, T) matrix of differences, which avoids loops over photos or
    tags and padding. The gradient is computed with the loss, so that a block of rows can be dropped after it.

    Args:
        scores: (B, T).
        labels: (B, T) bool.
        per_negative: also divide by the number of negatives.

    Returns:
        (B,); 0 for a photo without positives.
    """
    photo, tag = labels.nonzero(as_tuple=True)
    with torch.no_grad():
        total, gradient = scores.new_zeros(len(scores)), torch.zeros_like(scores)
        for block in _blocks(len(photo), labels.shape[1], scores.device):
            rows, own = photo[block], tag[block]
            pairs = scores.index_select(0, rows).sub_(scores[rows, own][:, None])
            # Masks pairs of positives: -inf has softplus 0 and gradient 0.
            pairs.masked_fill_(labels.index_select(0, rows), -torch.inf)
            total.index_add_(0, rows, _softplus_(pairs))
            gradient.index_add_(0, rows, pairs)
            gradient[rows, own] = -pairs.sum(dim=1)
    count = torch.bincount(photo, minlength=len(labels))
    divisor = count * (labels.shape[1] - count) if per_negative else count
    return _Known.apply(scores, total, gradient) / divisor.clamp(min=1)


def cross_entropy(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of each tag, summed over tags.

    Args:
        scores: (B, T) log-odds.
        labels: (B, T) bool.

    Returns:
        (B,).
    """
    with torch.no_grad():
        gradient = scores.clone()
        total = torch.cat([_softplus_(gradient[rows]) for rows in _blocks(len(scores), labels.shape[1], scores.device)])
        photo, tag = labels.nonzero(as_tuple=True)
        total.index_add_(0, photo, scores[photo, tag], alpha=-1)
        gradient[labels] -= 1
    return _Known.apply(scores, total, gradient)


def rejection_loss(
    scores: torch.Tensor, labels: torch.Tensor, rejected: torch.Tensor, method: Method, offset: float
) -> torch.Tensor:
    """What rejected tags contribute to the ranking loss, or to the cross-entropy.

    An absent tag may be one that nobody thought of, a rejected one is wrong for certain.

    Args:
        scores: (B, T).
        labels: (B, T) bool.
        rejected: (B, T) bool.
        method, offset: as in `loss`.

    Returns:
        (B,); 0 for a photo without positives or without rejected tags.
    """
    photo, tag = rejected.nonzero(as_tuple=True)
    wrong = scores[photo, tag]
    if method.cross_entropy:
        parts = softplus(wrong + offset)
    else:
        parts = softplus(wrong[:, None] - scores[photo]).masked_fill(~labels[photo], 0).sum(dim=1)
        count = labels.sum(dim=1)
        divisor = count * (labels.shape[1] - count) if method.per_negative else count
        parts = parts / divisor[photo].clamp(min=1)
    return scores.new_zeros(len(scores)).index_add(0, photo, parts)


def loss(
    principal: torch.Tensor,
    labels: torch.Tensor,
    vectors: torch.Tensor,
    method: Method,
    offset: float = 0.0,
    rejected: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean loss of a batch (SDL; Fast0Tag is the case M = 1, w = 1, lambda = 0).

    2 ((1 - lambda) w L_rank + lambda L_reg), where L_reg is the summed unbiased variance of the principal
    vectors. With `method.cross_entropy`, L_rank is the binary cross-entropy of score + offset, summed over tags.
    Photos without positive tags contribute 0.

    Args:
        principal: (B, M, d).
        labels: (B, T) bool, over the seen tags.
        vectors: (T, d) unit vectors of the seen tags.
        method: M, lambda and the switches.
        offset: mean log-odds of the tags, which keeps scores small; not used in inference.
        rejected: (B, T) bool, tags that a person rejected, which count as negatives `REJECTED` times more than others;
            None for none.

    Returns:
        A scalar.
    """
    # Half precision lacks the range and precision for sums over a thousand tags.
    principal = principal.to(vectors.dtype)
    weight = diversity_weight(labels, vectors) if method.diversity_weight else 1.0
    scores, variance = _Score.apply(principal, vectors)
    if method.cross_entropy:
        rank = cross_entropy(scores + offset, labels)
    else:
        rank = ranking_loss(scores, labels, method.per_negative)
    if rejected is not None:
        rank = rank + REJECTED * rejection_loss(scores, labels, rejected, method, offset)
    total = (1 - method.regularisation) * weight * rank
    if method.regularisation:
        total = total + method.regularisation * variance
    return 2 * (total * labels.any(dim=1)).mean()
