"""The methods: scores and losses of principal vectors.

The formulas are those of Ben-Cohen et al., "Semantic Diversity Learning for Zero-Shot Multi-label
Classification" (ICCV 2021), and of Zhang, Gong and Shah, "Fast Zero-Shot Image Tagging" (CVPR 2016). `sdl_plus` is
our own: one vector per photo, in the space of lifted words, trained with cross-entropy.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from zerotag.errors import ZerotagError
from zerotag.settings import from_params

Kind = Literal["trained", "classifier", "conse"]

# How much a rejected tag counts as a negative, beyond what every absent tag does.
REJECTED = 3.0


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
        vectors: (T, d) unit word vectors.

    Returns:
        (B, T).
    """
    return (principal @ vectors.T).amax(dim=1)


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
    nothing = vectors.new_zeros(len(labels), vectors.shape[1])
    mean = nothing.index_add(0, photo, vectors[tag]) / count.clamp(min=1)[:, None]
    # Two passes, as the difference of two large sums loses precision.
    squares = (vectors[tag] - mean[photo]).square().sum(dim=1)
    return 1 + squares.new_zeros(len(labels)).index_add(0, photo, squares) / (count - 1).clamp(min=1)


def _softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(x)) without overflow; twice as fast as torch's on the CPU, whose log1p is slow."""
    top = x.detach().clamp(min=0)  # cancels out, so no gradient is needed
    return top + ((-top).exp() + (x - top).exp()).log()


def ranking_loss(scores: torch.Tensor, labels: torch.Tensor, per_negative: bool) -> torch.Tensor:
    """RankNet over all pairs of a positive and a negative tag, divided by the number of positives.

    Each positive of the batch is a row of a (positives, T) matrix of differences, which avoids loops over photos
    or tags and padding.

    Args:
        scores: (B, T).
        labels: (B, T) bool.
        per_negative: also divide by the number of negatives.

    Returns:
        (B,); 0 for a photo without positives.
    """
    photo, tag = labels.nonzero(as_tuple=True)
    # Masks pairs of positives: -inf has softplus 0 and gradient 0.
    negatives = scores.masked_fill(labels, -torch.inf)
    pairs = _softplus(negatives[photo] - scores[photo, tag][:, None]).sum(dim=1)
    total = pairs.new_zeros(len(labels)).index_add(0, photo, pairs)
    count = torch.bincount(photo, minlength=len(labels))
    divisor = count * (labels.shape[1] - count) if per_negative else count
    return total / divisor.clamp(min=1)


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
    principal = principal.float()
    scores = score(principal, vectors)
    if method.cross_entropy:
        rank = binary_cross_entropy_with_logits(scores + offset, labels.float(), reduction="none").sum(dim=1)
    else:
        rank = ranking_loss(scores, labels, method.per_negative)
    if rejected is not None:
        rank = rank + REJECTED * rejection_loss(scores, labels, rejected, method, offset)
    if method.diversity_weight:
        rank = diversity_weight(labels, vectors) * rank
    total = (1 - method.regularisation) * rank
    if method.regularisation and principal.shape[1] > 1:
        # torch.var is ten times slower over a dimension other than the last.
        squares = (principal - principal.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2))
        total = total + method.regularisation * squares / (principal.shape[1] - 1)
    return 2 * (total * labels.any(dim=1)).mean()
