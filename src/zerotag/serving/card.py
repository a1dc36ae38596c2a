"""The model card: what a package is, how good it is, and what it is not made for, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

TASKS = {"zsl": "unseen tags among unseen", "gzsl": "all tags", "seen": "seen tags among seen"}
_FIGURES = {"map": "mAP", "f1@3": "F1@3", "f1@5": "F1@5"}


def model_card(info: Mapping[str, Any], calibration: Mapping[str, Any], seen: int, tags: int) -> str:
    """Write the card. What a package does not say is left out.

    Args:
        info: content of tagger.json.
        calibration: the figures of calibration.json.
        seen: number of tags that were training targets.
        tags: number of tags of the vocabulary.
    """
    sections = {
        "Data": _data(info, seen, tags),
        "Figures": _figures(info),
        "Probabilities": _probabilities(calibration),
        "Behaviour": _behaviour(info.get("behaviour") or {}),
        "Limits": "".join(f"- {limit}\n" for limit in _limits(info, seen)),
        "Licences": "".join(f"- {text}\n" for text in (info.get("licences") or {}).values()),
    }
    head = f"# {info['name']} {info['version']}\n\n{_model(info)}"
    return head + "".join(f"\n## {name}\n\n{content}" for name, content in sections.items() if content)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows] if rows else []
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _facts(facts: Mapping[str, Any]) -> str:
    return _table(["", ""], [[name, str(fact)] for name, fact in facts.items() if fact not in (None, "")])


def _model(info: Mapping[str, Any]) -> str:
    training, exported = info["training"], info.get("export") or {}
    return _facts(
        {
            "backbone": info["backbone"],
            "method": info["method"],
            "weights": training.get("weights"),
            "training": (training.get("mode") or "").replace("_", " "),
            "input": f"{info['size']} × {info['size']} pixels",
            "principal vectors": f"{info['principal_vectors']}, of {info['dimensions']} dimensions",
            "precision": exported.get("precision"),
            "trained": training.get("date"),
            "hardware": training.get("hardware"),
            "code": info.get("git"),
        }
    )


def _data(info: Mapping[str, Any], seen: int, tags: int) -> str:
    data = info["training"]["data"]
    counts = {f"{part} photos": f"{data[f'{part}_photos']:,}" for part in ("train", "test") if f"{part}_photos" in data}
    words = f"{tags:,}, of which {seen:,} seen in training"
    return _facts(
        {
            "source": data.get("source"),
            "digest": data.get("digest"),
            **counts,
            "tags": words,
            "words": data.get("words"),
        }
    )


def _figures(info: Mapping[str, Any]) -> str:
    metrics, intervals = info.get("metrics") or {}, info.get("intervals") or {}
    rows = [
        [
            name,
            *(_figure(metrics[task].get(key), intervals.get(task, {}).get(key)) for key in _FIGURES),
            *(_figure(metrics[task].get("random_map")), str(metrics[task].get("images", ""))),
        ]
        for task, name in TASKS.items()
        if task in metrics
    ]
    note = "Percent, on the test photos; in brackets 95% bootstrap intervals over photos.\n\n"
    return note * bool(rows) + _table(["", *_FIGURES.values(), "mAP of chance", "photos"], rows)


def _figure(figure: float | None, interval: Sequence[float] | None = None) -> str:
    return ("none" if figure is None else f"{figure:.1f}") + (" [{:.1f}, {:.1f}]".format(*interval) if interval else "")


def _probabilities(calibration: Mapping[str, Any]) -> str:
    facts = {"scaling": calibration.get("method"), "fitted on": calibration.get("fitted_on")}
    facts |= {"photos": calibration.get("photos"), "tags with a line of their own": calibration.get("own_line")}
    for task in ("seen", "unseen"):
        error = (calibration.get(task) or {}).get("expected_calibration_error")
        facts[f"expected calibration error, {task} tags"] = None if error is None else f"{100 * error:.2f} points"
    return _facts(facts)


def _behaviour(found: Mapping[str, Any]) -> str:
    """Results of behaviour tests: figures by name, in groups or not."""
    rows = []
    for name, result in found.items():
        for inner, figure in result.items() if isinstance(result, Mapping) else {"": result}.items():
            text = f"{figure:.4g}" if isinstance(figure, float) else str(figure)
            rows.append([f"{name}: {inner}" if inner else name, text])
    return _table(["test", "result"], rows)


def _limits(info: Mapping[str, Any], seen: int) -> list[str]:
    training = info["training"]
    data, words = training["data"], str(training["data"].get("words", ""))
    limits = []
    if data.get("source") == "scenes":
        limits.append("Trained on rendered scenes: the figures say nothing about photographs.")
    elif seen:
        limits.append("The figures are those of test photos of the same source; other photographs give others.")
    else:
        limits.append("Not trained on any photo of yours; it knows what its backbone learnt.")
    if training.get("mode") in ("partial_fine_tuning", "full_fine_tuning"):
        limits.append("Calibrated on its own training photos: its probabilities are too high.")
    limits.append("A probability of a word outside the vocabulary is scaled as that of an unseen tag.")
    if "minilm" in words.lower():
        limits.append("Words and phrases in English; other languages in Latin script are accepted, but mean little.")
    limits.append("It tags what is in a photo. It is not made to identify people or to judge anything about them.")
    return limits
