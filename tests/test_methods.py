"""The loss against slow loops over photos and tags, written straight from the formulas."""

import math

import pytest
import torch
from benchmarks.loss import loop_loss, pairs, peak_memory, random_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerotag.errors import ZerotagError
from zerotag.training import methods as code
from zerotag.training.heads import Head
from zerotag.training.methods import (
    METHODS,
    REJECTED,
    Method,
    cross_entropy,
    diversity_weight,
    loss,
    method,
    ranking_loss,
    score,
)


def assert_close(given: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


def slow_log1p_exp(x: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(x)) in the form that does not overflow."""
    return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))


def slow_variance(rows: list[torch.Tensor]) -> torch.Tensor:
    """Unbiased variance of each dimension, summed."""
    mean = sum(rows[1:], rows[0]) / len(rows)
    return sum(((row - mean) ** 2).sum() for row in rows) / (len(rows) - 1)  # type: ignore[return-value]


def slow_score(matrix: torch.Tensor, tag: torch.Tensor) -> torch.Tensor:
    """The largest dot product of a tag with the rows of one photo's matrix."""
    return torch.stack([(row * tag).sum() for row in matrix]).max()


def slow_rank(scores: list[torch.Tensor], wanted: list[bool], per_negative: bool) -> torch.Tensor:
    positives = [tag for tag, is_positive in enumerate(wanted) if is_positive]
    negatives = [tag for tag, is_positive in enumerate(wanted) if not is_positive]
    total = torch.zeros((), dtype=scores[0].dtype)
    for p in positives:
        for n in negatives:
            total = total + slow_log1p_exp(scores[n] - scores[p])
    if not positives or not negatives:
        return total * 0
    return total / (len(positives) * (len(negatives) if per_negative else 1))


def slow_loss(principal: torch.Tensor, labels: torch.Tensor, vectors: torch.Tensor, chosen: Method) -> torch.Tensor:
    """The mean over photos of 2 ((1 - lambda) w L_rank + lambda L_reg)."""
    total = torch.zeros((), dtype=principal.dtype)
    for matrix, wanted in zip(principal, labels.tolist(), strict=True):
        words = [vectors[tag] for tag, is_positive in enumerate(wanted) if is_positive]
        if not words:
            continue
        scores = [slow_score(matrix, tag) for tag in vectors]
        rank = slow_rank(scores, wanted, chosen.per_negative)
        if chosen.cross_entropy:
            rank = sum((1 + (-value if yes else value).exp()).log() for value, yes in zip(scores, wanted, strict=True))  # type: ignore[assignment]
        weight = 1 + slow_variance(words) if chosen.diversity_weight and len(words) > 1 else 1
        spread = slow_variance(list(matrix)) if len(matrix) > 1 else 0
        total = total + 2 * ((1 - chosen.regularisation) * weight * rank + chosen.regularisation * spread)
    return total / len(principal)


def problem(
    seed: int, photos: int, tags: int, rows: int, dimensions: int, share: float = 0.4
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random principal vectors, labels and unit word vectors; the first photos have no, one and all tags."""
    random = torch.Generator().manual_seed(seed)
    principal = torch.randn(photos, rows, dimensions, generator=random)
    labels = torch.rand(photos, tags, generator=random) < share
    for photo, positives in enumerate((0, 1, tags)[:photos]):
        labels[photo] = torch.arange(tags) < positives
    vectors = torch.nn.functional.normalize(torch.randn(tags, dimensions, generator=random), dim=1)
    return principal, labels, vectors


@st.composite
def problems(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Small problems of any shape, their labels drawn one by one."""
    photos, tags = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    principal, _, vectors = problem(
        draw(st.integers(0, 1000)), photos, tags, draw(st.integers(1, 4)), draw(st.integers(1, 5))
    )
    kinds = st.one_of(
        st.just([False] * tags),
        st.just([True] * tags),
        st.integers(0, tags - 1).map(lambda only: [tag == only for tag in range(tags)]),
        st.lists(st.booleans(), min_size=tags, max_size=tags),
    )
    return principal, torch.tensor([draw(kinds) for _ in range(photos)]), vectors


methods = st.builds(
    Method, regularisation=st.sampled_from([0.0, 0.01, 0.3, 1.0]), diversity_weight=st.booleans(),
    per_negative=st.booleans(), cross_entropy=st.booleans(),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(problems(), methods, st.integers(0, 2**24 - 1))
def test_rejected_tags_count_as_several_negatives(
    drawn: tuple[torch.Tensor, torch.Tensor, torch.Tensor], chosen: Method, bits: int
) -> None:
    principal, labels, vectors = drawn
    rejected = torch.tensor([bits >> place & 1 for place in range(labels.numel())]).view(labels.shape).bool() & ~labels
    more = torch.zeros(())
    for matrix, wanted, wrong in zip(principal, labels.tolist(), rejected.tolist(), strict=True):
        scores = [slow_score(matrix, tag) for tag in vectors]
        positives = [score for score, yes in zip(scores, wanted, strict=True) if yes]
        negatives = [score for score, yes in zip(scores, wrong, strict=True) if yes]
        if not positives or not negatives:
            continue
        if chosen.cross_entropy:
            part = sum((slow_log1p_exp(score) for score in negatives), more * 0)
        else:
            part = sum((slow_log1p_exp(n - p) for n in negatives for p in positives), more * 0) / len(positives)
            part = part / (len(wanted) - len(positives)) if chosen.per_negative else part
        words = [vectors[tag] for tag, yes in enumerate(wanted) if yes]
        weight = 1 + slow_variance(words) if chosen.diversity_weight and len(words) > 1 else 1
        more = more + 2 * (1 - chosen.regularisation) * weight * part / len(principal)
    without = loss(principal, labels, vectors, chosen)
    assert_close(loss(principal, labels, vectors, chosen, 0.0, rejected), without + REJECTED * more)


@settings(max_examples=80, deadline=None)
@given(problems(), methods, st.sampled_from([1, 5, 2**17]))
def test_loss_and_gradient_equal_the_slow_loop(
    drawn: tuple[torch.Tensor, torch.Tensor, torch.Tensor], chosen: Method, block: int
) -> None:
    principal, labels, vectors = drawn
    fast_input, slow_input = principal.clone().requires_grad_(), principal.double().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "_BLOCK", block)
        fast = loss(fast_input, labels, vectors, chosen)
        fast.backward()
    slow = slow_loss(slow_input, labels, vectors.double(), chosen)
    assert_close(fast.double(), slow)
    if slow.requires_grad:
        slow.backward()
    expected = torch.zeros_like(principal) if slow_input.grad is None else slow_input.grad.float()
    assert fast_input.grad is not None
    assert_close(fast_input.grad, expected)


@settings(max_examples=40, deadline=None)
@given(problems(), st.booleans())
def test_parts_equal_the_slow_loop(drawn: tuple[torch.Tensor, torch.Tensor, torch.Tensor], per_negative: bool) -> None:
    principal, labels, vectors = drawn
    scores = score(principal, vectors)
    expected = torch.stack([torch.stack([slow_score(matrix, tag) for tag in vectors]) for matrix in principal])
    assert_close(scores, expected)
    rank = torch.stack(
        [slow_rank(list(row), wanted, per_negative) for row, wanted in zip(expected, labels.tolist(), strict=True)]
    )
    assert_close(ranking_loss(scores, labels, per_negative), rank)
    for wanted, weight in zip(labels, diversity_weight(labels, vectors), strict=True):
        words = list(vectors[wanted])
        assert float(weight) == pytest.approx(1 + (float(slow_variance(words)) if len(words) > 1 else 0), abs=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_a_larger_problem(name: str) -> None:
    principal, labels, vectors = problem(1, 12, 60, METHODS[name].principal_vectors, 50, share=0.08)
    fast = loss(principal, labels, vectors, METHODS[name])
    slow = slow_loss(principal.double(), labels, vectors.double(), METHODS[name])
    assert_close(fast.double(), slow)


@pytest.mark.parametrize("block", [1, 10, 2**17])
def test_gradients_in_double_precision(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_BLOCK", block)
    principal, labels, vectors = problem(6, 5, 7, 3, 4)
    principal, vectors = principal.double().requires_grad_(), vectors.double()
    scores = (principal.detach() @ vectors.T).amax(dim=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: score(given, vectors), principal)
    for per_negative in (False, True):
        assert torch.autograd.gradcheck(lambda given, by=per_negative: ranking_loss(given, labels, by), scores)
    assert torch.autograd.gradcheck(lambda given: cross_entropy(given, labels), scores)
    for name in ("sdl", "fast0tag", "sdl_plus"):
        assert torch.autograd.gradcheck(lambda given, by=METHODS[name]: loss(given, labels, vectors, by), principal)


@pytest.mark.parametrize("name", ["sdl", "sdl_plus"])
def test_there_is_no_second_derivative(name: str) -> None:
    principal, labels, vectors = problem(7, 4, 6, 3, 5)
    value = loss(principal.requires_grad_(), labels, vectors, METHODS[name])
    with pytest.raises(ZerotagError, match="no second derivative"):
        torch.autograd.grad(value, principal, create_graph=True)


def test_equal_principal_vectors_get_the_gradient_once() -> None:
    principal, _, vectors = problem(8, 3, 6, 2, 5)
    principal[:, 0] = principal[:, 1]
    score(principal.requires_grad_(), vectors).sum().backward()
    assert principal.grad is not None
    assert_close(principal.grad.sum(dim=1), vectors.sum(dim=0).expand(3, -1))


def test_more_principal_vectors_than_a_byte_counts() -> None:
    principal, labels, vectors = problem(9, 4, 20, 300, 5)
    fast, slow = principal.clone().requires_grad_(), principal.clone().requires_grad_()
    loss(fast, labels, vectors, METHODS["sdl"]).backward()
    loop_loss(slow, labels, vectors, METHODS["sdl"]).backward()
    assert fast.grad is not None and slow.grad is not None
    assert_close(fast.grad, slow.grad)


def test_a_compiled_loss_is_the_same() -> None:
    plain, labels, vectors = problem(10, 6, 20, 7, 5)
    compiled = plain.clone().requires_grad_()
    loss(plain.requires_grad_(), labels, vectors, Method()).backward()
    torch.compile(loss, backend="eager")(compiled, labels, vectors, Method()).backward()
    assert plain.grad is not None and compiled.grad is not None
    assert_close(compiled.grad, plain.grad)


@pytest.mark.parametrize("name", ["sdl", "sdl_plus"])
def test_memory_stays_below_that_of_all_pairs(name: str) -> None:
    photos, positives, tags = 16, 100, 2000
    principal, _, vectors = problem(11, photos, tags, METHODS[name].principal_vectors, 50)
    labels = torch.arange(tags).expand(photos, tags) % (tags // positives) == 0
    assert peak_memory(loss, METHODS[name], (principal, labels, vectors)) < 4e-6 * photos * positives * tags / 4


@pytest.mark.parametrize("name", ["sdl", "fast0tag", "sdl_plus"])
def test_memory_of_the_papers_batch_stays_below_that_of_all_pairs(name: str) -> None:
    assert peak_memory(loss, METHODS[name], random_batch(METHODS[name], 925)) < pairs(925)


def test_the_layout_of_the_principal_vectors_changes_nothing() -> None:
    principal, labels, vectors = problem(5, 6, 30, 4, 12)
    gradients = []
    for layout in (principal, principal.transpose(0, 1).contiguous().transpose(0, 1), principal[:1].expand(6, -1, -1)):
        leaf = layout.detach().requires_grad_()
        loss(leaf, labels, vectors, METHODS["sdl"]).backward()
        expected = layout.detach().contiguous().requires_grad_()
        loss(expected, labels, vectors, METHODS["sdl"]).backward()
        assert leaf.grad is not None and expected.grad is not None
        assert_close(leaf.grad, expected.grad)
        gradients.append(leaf.grad)
    assert_close(gradients[0], gradients[1])


def test_hand_worked_case() -> None:
    # Two photos, three tags along the axes. Photo 1: rows (1, 0, 0) and (0, 2, 0), tags 0 and 1.
    vectors = torch.eye(3)
    principal = torch.tensor([[[1.0, 0, 0], [0, 2, 0]], [[5.0, 5, 5], [-5, -5, -5]]])
    labels = torch.tensor([[True, True, False], [False, False, False]])
    assert score(principal, vectors)[0].tolist() == [1, 2, 0]
    # Pairs (0, 2) and (1, 2): log(1 + e^-1) and log(1 + e^-2), over two positives.
    rank = (math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))) / 2
    # Word vectors e0 and e1 have variance 1/2 in two dimensions.
    weight = 1 + 0.5 + 0.5
    # Rows: variance of (1, 0) is 1/2, of (0, 2) is 2.
    spread = 0.5 + 2
    expected = 2 * (0.7 * weight * rank + 0.3 * spread) / 2  # the second photo has no tag and adds nothing
    assert float(loss(principal, labels, vectors, Method())) == pytest.approx(expected, rel=1e-6)
    assert float(ranking_loss(score(principal, vectors), labels, False)[0]) == pytest.approx(rank, rel=1e-6)
    assert diversity_weight(labels, vectors).tolist() == [2, 1]


@pytest.mark.parametrize("sign", [1, -1])
def test_huge_scores_do_not_overflow(sign: int) -> None:
    scores = (sign * torch.tensor([[1e4, -1e4, 0.0, 1e4]])).requires_grad_()
    labels = torch.tensor([[True, False, False, False]])
    value = ranking_loss(scores, labels, False)
    expected = math.log(2) if sign > 0 else 2e4 + 1e4 + math.log(2)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-6)
    value.sum().backward()
    expected_gradient = [-0.5, 0, 0, 0.5] if sign > 0 else [-2.5, 1, 1, 0.5]
    assert scores.grad is not None
    assert scores.grad[0].tolist() == pytest.approx(expected_gradient, abs=1e-6)


def test_huge_principal_vectors_give_finite_gradients() -> None:
    principal, labels, vectors = problem(2, 6, 20, 7, 10)
    principal = (principal * 1e4).requires_grad_()
    value = loss(principal, labels, vectors, Method())
    value.backward()
    assert torch.isfinite(value) and principal.grad is not None and torch.isfinite(principal.grad).all()


@pytest.mark.parametrize("positives", [0, 5])
def test_photos_without_positives_or_negatives(positives: int) -> None:
    principal, _, vectors = problem(3, 4, 5, 3, 6)
    labels = torch.arange(5).expand(4, 5) < positives
    leaf = principal.clone().requires_grad_()
    value = loss(leaf, labels, vectors, Method())
    value.backward()
    # No pair to rank: nothing without positives, the rows' variance alone without negatives.
    expected = 0.0 if positives == 0 else float(0.6 * principal.var(dim=1).sum(dim=1).mean())
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)
    assert leaf.grad is not None and torch.isfinite(leaf.grad).all()


def test_fast0tag_is_sdl_with_one_vector_no_weight_and_no_regularisation() -> None:
    principal, labels, vectors = problem(4, 8, 30, 1, 10)
    counts = labels.sum(dim=1)
    pairs = ranking_loss(principal[:, 0] @ vectors.T, labels, per_negative=False) * counts
    by_hand = (2 * pairs / (counts * (30 - counts)).clamp(min=1)).mean()
    assert_close(loss(principal, labels, vectors, METHODS["fast0tag"]), by_hand)
    switched = Method(principal_vectors=1, regularisation=0.0, diversity_weight=False, per_negative=True)
    assert METHODS["fast0tag"] == switched
    # With one row there is no variance: lambda only scales.
    plain = loss(principal, labels, vectors, Method(1, 0.0, False, False))
    assert_close(loss(principal, labels, vectors, Method(1, 0.3, False, False)), 0.7 * plain)


@settings(max_examples=40, deadline=None)
@given(problems(), methods, st.randoms(use_true_random=False))
def test_the_order_of_tags_rows_and_photos_changes_nothing(
    drawn: tuple[torch.Tensor, torch.Tensor, torch.Tensor], chosen: Method, random: object
) -> None:
    principal, labels, vectors = drawn

    def shuffled(count: int) -> list[int]:
        order = list(range(count))
        random.shuffle(order)  # type: ignore[attr-defined]
        return order

    expected = loss(principal, labels, vectors, chosen)
    tags, rows, photos = (shuffled(count) for count in (len(vectors), principal.shape[1], len(labels)))
    for value in (
        loss(principal, labels[:, tags], vectors[tags], chosen),
        loss(principal[:, rows], labels, vectors, chosen),
        loss(principal[photos], labels[photos], vectors, chosen),
    ):
        assert_close(value, expected)


def test_half_precision_vectors_are_summed_in_full() -> None:
    principal, labels, vectors = problem(5, 8, 40, 7, 20)
    half = principal.bfloat16()
    value = loss(half, labels, vectors, Method())
    assert value.dtype == torch.float32
    assert_close(value, loss(half.float(), labels, vectors, Method()))


def test_head_has_one_matrix_and_the_rows_it_promises() -> None:
    head = Head(features=6, method=Method(3), dimensions=4)
    features = torch.randn(2, 6)
    assert [tuple(weight.shape) for weight in head.parameters()] == [(12, 6)]
    assert_close(head(features), (features @ head.linear.weight.T).reshape(2, 3, 4))


def test_method_registry() -> None:
    assert method("sdl") == Method(7, 0.3, True, False)
    assert method("sdl", {"principal_vectors": 2, "regularisation": 0.01}) == Method(2, 0.01, True, False)


def test_which_methods_need_what() -> None:
    assert [name for name in METHODS if not method(name).trained] == ["classifier", "conse"]
    assert [name for name in METHODS if method(name).needs_classifier] == ["sdl_plus", "classifier", "conse"]
    assert not method("sdl_plus", {"trust": 0}).needs_classifier


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("sld", {}, "'sld' is unknown; use sdl_plus, sdl, fast0tag"),
        ("sdl", {"lamda": 1}, "lamda"),
        ("sdl", {"principal_vectors": 0}, "principal_vectors must be 1 or more"),
        ("sdl", {"regularisation": 1.5}, r"regularisation must be in \[0, 1\]"),
        ("sdl_plus", {"trust": -0.1}, r"method\.sdl_plus\.trust must be 0 or more"),
        ("sdl", {"trust": 0.5}, r"method\.sdl\.trust must be .* 0 without a sharpness"),
        ("sdl_plus", {"sharpness": []}, r"method\.sdl_plus\.trust must be .* 0 without a sharpness"),
        ("sdl", {"kind": "devise"}, r"method\.sdl\.kind = 'devise'"),
    ],
)
def test_bad_method_settings_are_named(name: str, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ZerotagError, match=said):
        method(name, changes)


@pytest.mark.parametrize(
    "changes", [{"principal_vectors": "many"}, {"principal_vectors": 2.5}, {"regularisation": None}]
)
def test_a_setting_of_the_wrong_type_is_named(changes: dict[str, object]) -> None:
    with pytest.raises(ZerotagError, match=next(iter(changes))):
        method("sdl", changes)
