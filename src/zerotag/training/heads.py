"""Heads: from a backbone's features to a photo's principal vectors.

`Head` is what training fits. `ClassHead` needs no training: it is the classifier that the backbone came with, whose
classes have names and so word vectors. `JointHead` has both, side by side. `ConseHead` is the published baseline.
"""

from typing import Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from zerotag.training.classifier import Classifier
from zerotag.training.methods import Method, score
from zerotag.words.lift import Lift
from zerotag.words.vocabulary import Vocabulary

# Of the classes' softmax, where they are a head; 3.5 to 5 hardly differ (docs/starter.md).
_TEMPERATURE = 4.0
# Classes that ConSE averages.
_CONSE_CLASSES = 10


class Head(nn.Module):
    """Linear map from features to principal vectors: (B, F) -> (B, M, d).

    Args:
        features: F.
        method: M, standardisation and bias.
        dimensions: d.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, features: int, method: Method, dimensions: int):
        super().__init__()
        self.principal_vectors = method.principal_vectors
        self.standardise = method.standardise
        self.linear = nn.Linear(features, method.principal_vectors * dimensions, bias=method.prior)
        if self.standardise:
            self.register_buffer("mean", torch.zeros(features))
            self.register_buffer("scale", torch.ones(()))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) -> (B, M, d)."""
        if self.standardise:
            features = (_root(features) - self.mean) / self.scale
        return self.linear(features).unflatten(-1, (self.principal_vectors, -1))


def _root(features: torch.Tensor) -> torch.Tensor:
    # The square root has no finite gradient at 0.
    return (features.clamp(min=0) + 1e-6).sqrt()


@torch.no_grad()
def start_head(head: Head, features: torch.Tensor, frequency: torch.Tensor, vectors: torch.Tensor) -> None:
    """Initialise the standardisation and the bias of a head from training photos.

    The bias is the ridge regression solution of <bias, n_t> = log-odds of tag t minus their mean, for all seen tags.
    A head without either is unchanged.

    Args:
        head: changed in place.
        features: (N, F) of a sample of training photos.
        frequency: (S,) share of training photos with each seen tag.
        vectors: (S, d) unit vectors of the seen tags.
    """
    if head.standardise:
        roots = _root(features)
        head.mean.copy_(roots.mean(dim=0))
        head.scale.copy_(roots.var(dim=0).mean().sqrt())
    if head.linear.bias is not None:
        head.linear.weight.zero_()
        odds = log_odds(frequency)
        ridge = vectors.T @ vectors + torch.eye(vectors.shape[1])
        bias = torch.linalg.solve(ridge, vectors.T @ (odds - odds.mean()))
        head.linear.bias.copy_(bias.repeat(head.principal_vectors))


def log_odds(frequency: torch.Tensor) -> torch.Tensor:
    """Log-odds of shares in [0, 1], clamped to be finite."""
    return frequency.clamp(1e-4, 1 - 1e-4).logit()


class _Classes(nn.Module):
    """What heads made of a pretrained classifier share: its weights, which are not trained."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(classes, features))
        self.register_buffer("bias", torch.zeros(classes))

    def take(self, classifier: Classifier) -> Self:
        """Copy a classifier's weights."""
        self.weight.copy_(classifier.weight)
        self.bias.copy_(classifier.bias)
        return self

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) -> (B, C)."""
        return functional.linear(features, self.weight, self.bias)


class ClassHead(_Classes):
    """A pretrained classifier as a head: (B, F) -> (B, 1, C).

    A photo's class probabilities at a high temperature, minus their mean, as a vector of length `scale`: strong classes
    count more than in the logits, weak ones still count, and scores compare between photos. A word's vector is a weight
    for each class, see `zerotag.words.lift`.

    Args:
        features: F.
        classes: C.
    """

    scale: torch.Tensor

    def __init__(self, features: int, classes: int):
        super().__init__(features, classes)
        self.register_buffer("scale", torch.ones(()))

    @classmethod
    def of(cls, classifier: Classifier) -> Self:
        """With a classifier's weights."""
        classes, features = classifier.weight.shape
        return cls(features, classes).take(classifier)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) -> (B, 1, C)."""
        return self._interpolated(self.logits(features)).unsqueeze(1)

    def _interpolated(self, logits: torch.Tensor) -> torch.Tensor:
        shares = (logits / _TEMPERATURE).softmax(dim=-1)
        return self.scale * functional.normalize(shares - shares.mean(dim=-1, keepdim=True), dim=-1)


class KindHead(ClassHead):
    """With the classes' own probabilities beside: (B, F) -> (B, 1, 2 C).

    What no single class is sure of, many are together: a dog of thirty likely breeds is a dog for sure. The second half
    of a word's vector says which classes are kinds of it, see `zerotag.words.kinds`.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) -> (B, 1, 2 C)."""
        logits = self.logits(features)
        return torch.cat([self._interpolated(logits), logits.softmax(dim=-1)], dim=-1).unsqueeze(1)


class JointHead(nn.Module):
    """A trained head and a classifier's classes side by side: (B, F) -> (B, M, d + C)."""

    def __init__(self, trained: Head, classes: ClassHead):
        super().__init__()
        self.trained = trained
        self.classes = classes

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) -> (B, M, d + C); the classes are the same in each of a photo's principal vectors."""
        principal = self.trained(features)
        classes = self.classes(features).expand(-1, principal.shape[1], -1)
        return torch.cat([principal, classes], dim=-1)

    @torch.no_grad()
    def match_scales(self, features: torch.Tensor, vectors: torch.Tensor, trust: float) -> None:
        """Scale the classes' scores to `trust` times the spread of the seen tags' scores.

        Args:
            features: (N, F) of a sample of training photos.
            vectors: (S, d) of the seen tags.
            trust: see `zerotag.training.methods.Method`.
        """
        scores = score(self.trained(features), vectors)
        spread = (scores - scores.mean(dim=1, keepdim=True)).std()
        self.classes.scale.fill_(1)
        self.classes.scale.copy_(trust * spread / self.classes(features).std())


class ConseHead(_Classes):
    """ConSE (Norouzi et al., ICLR 2014): (B, F) -> (B, 1, d), the mean of the word vectors of the ten best classes.

    The mean is weighted by the classes' probabilities and of unit length, so that a word's score is a cosine.

    Args:
        features: F.
        classes: C.
        dimensions: d.
    """

    vectors: torch.Tensor

    def __init__(self, features: int, classes: int, dimensions: int):
        super().__init__(features, classes)
        self.register_buffer("vectors", torch.zeros(classes, dimensions))

    @classmethod
    def of(cls, classifier: Classifier, vectors: torch.Tensor) -> "ConseHead":
        """With a classifier's weights and its classes' word vectors, (C, d)."""
        head = cls(classifier.weight.shape[1], *vectors.shape).take(classifier)
        head.vectors.copy_(vectors)
        return head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) -> (B, 1, d)."""
        shares = self.logits(features).softmax(dim=-1)
        best = shares.topk(min(_CONSE_CLASSES, shares.shape[-1]), dim=-1)
        mean = (best.values.unsqueeze(-1) * self.vectors[best.indices]).sum(dim=1)
        return functional.normalize(mean, dim=-1).unsqueeze(1)


def lift_vocabulary(
    vocabulary: Vocabulary, method: Method, classes: np.ndarray | None = None, kinds: float = 0.0
) -> Vocabulary:
    """A vocabulary in the space that a method scores in.

    Args:
        vocabulary: of T tags, not lifted.
        method: whether it lifts, and how.
        classes: (C, d) word vectors of the backbone's classes, for a method that needs its classifier.
        kinds: for a `KindHead`, see `zerotag.words.lift.Lift`.
    """
    if not method.sharpness:
        return vocabulary
    seen = vocabulary.vectors[vocabulary.seen] if method.trained else vocabulary.vectors[:0]
    return vocabulary.lifted(Lift(seen, method.sharpness, classes, kinds))


def untrained_head(method: Method, classifier: Classifier, classes: np.ndarray) -> nn.Module:
    """The head of a method that needs no training.

    Args:
        method: of kind classifier or conse.
        classifier: the backbone's own, of C classes.
        classes: (C, d) their word vectors.
    """
    if method.kind == "conse":
        return ConseHead.of(classifier, torch.from_numpy(classes)).eval()
    return ClassHead.of(classifier).eval()


def empty_head(method: Method, features: int, vocabulary: Vocabulary, classes: int) -> nn.Module:
    """The head of a method, for a state dict to be loaded into.

    Args:
        method: of the head.
        features: F.
        vocabulary: that it was trained with.
        classes: C, of the backbone's classifier; 0 where the method does without.
    """
    if method.kind == "conse":
        return ConseHead(features, classes, vocabulary.dimensions)
    if method.kind == "classifier":
        return ClassHead(features, classes)
    head = Head(features, method, vocabulary.targets.shape[1])
    return JointHead(head, ClassHead(features, classes)) if method.trust else head
