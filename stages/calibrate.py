"""Turn the best model's scores into probabilities, and judge these on the test photos.

The model itself has seen all training photos, so that its scores of them promise too much. With a frozen backbone a
second head is therefore trained on a part of them, and the scores of the rest calibrate the model (as scikit-learn's
CalibratedClassifierCV does with ensemble=False). A third head is trained without some of the seen tags: how it scores
these on photos that it has not seen either is what to expect of unseen tags.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from zerotag.calibration import Calibration, expected_calibration_error, fit_calibration, reliability
from zerotag.choice import best_model
from zerotag.dataset import Dataset
from zerotag.errors import plain_exit
from zerotag.evaluation import principal_vectors, score_matrix
from zerotag.files import write_aside
from zerotag.methods import Head, Method
from zerotag.model import Model, load_model
from zerotag.settings import from_params, read_params
from zerotag.training import TrainSettings, feature_batches, train

HELD_OUT_PHOTOS = HELD_OUT_TAGS = 0.2
# Enough for the sigmoids of an end-to-end model, whose network has to run on each photo.
END_TO_END_PHOTOS = 2000


def main() -> None:
    params = read_params()
    backbone, method = best_model(Path("evaluation"), params["backbones"], params["methods"], params["best_by"])
    model = load_model(Path(f"models/{backbone}/{method}"))
    dataset = Dataset.read(Path("prepared"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    frozen = model.info["mode"] == "frozen"
    features = np.load(f"features/{backbone}.npy") if frozen else None
    random = np.random.default_rng(params["seed"])
    labels = dataset.labels[:, dataset.columns(model.vocabulary.tags)].tocsr()
    seen = np.flatnonzero(model.vocabulary.seen)
    names = [model.vocabulary.tags[column] for column in seen]
    vectors = model.vocabulary.vectors

    if features is not None:
        settings = from_params(TrainSettings, {**params["train"]["frozen"], "seed": params["seed"]}, "train.frozen")
        apart = random.random(dataset.train.size) < HELD_OUT_PHOTOS
        learn, rest = dataset.train[~apart], dataset.train[apart]
        hidden = random.random(seen.size) < HELD_OUT_TAGS
        scores = []
        for chosen in (seen, seen[~hidden]):
            embed = _second_head(model, features, learn, labels[:, chosen], vectors[chosen], settings, device)
            scores.append(score_matrix(embed(rest), vectors))
        pretend = seen[hidden]
        fitted = fit_calibration(
            scores[0][:, seen], labels[rest][:, seen], names, scores[1][:, pretend], labels[rest][:, pretend]
        )
        way = "held-out training photos, scored by a second head"
    else:
        rest = np.sort(random.choice(dataset.train, min(END_TO_END_PHOTOS, dataset.train.size), replace=False))
        own = score_matrix(principal_vectors(model, dataset, rest, device, params["features"]["batch"], None), vectors)
        part = labels[rest][:, seen]
        fitted = fit_calibration(own[:, seen], part, names, own[:, seen], part)
        way = "training photos, scored by the model itself: its probabilities are too high"

    principal = principal_vectors(model, dataset, dataset.test, device, params["features"]["batch"], features)
    scores_test = score_matrix(principal, vectors)
    probabilities = fitted.probabilities(model.vocabulary.tags, model.vocabulary.seen, scores_test)
    truth = labels[dataset.test].toarray()
    figures: dict[str, object] = {
        "method": "Platt",
        "fitted_on": way,
        "photos": int(rest.size),
        "own_line": len(fitted.tags),
    }
    for task, columns in (("seen", seen), ("unseen", np.flatnonzero(~model.vocabulary.seen))):
        rows = reliability(probabilities[:, columns].ravel(), truth[:, columns].ravel())
        figures[task] = {"expected_calibration_error": expected_calibration_error(rows), "reliability": rows}
        print(
            f"{task}: expected calibration error {100 * expected_calibration_error(rows):.2f} points on the test photos"
        )
    best = np.argsort(-scores_test, axis=1)[:, :10]
    given, true = (np.take_along_axis(table, best, axis=1).ravel() for table in (probabilities, truth))
    shown = reliability(given, true)
    figures["ten_best"] = {"expected_calibration_error": expected_calibration_error(shown), "reliability": shown}
    print(f"the ten best tags of each photo: {100 * expected_calibration_error(shown):.2f} points")
    with write_aside(Path("calibration")) as draft:
        draft.mkdir()
        content = Calibration(fitted.unseen, fitted.seen, fitted.tags, figures).content()
        (draft / "calibration.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _second_head(model: Model, features, rows, labels, vectors, settings: TrainSettings, device: torch.device):
    """Train a head as the train stage does; returns what gives photos' principal vectors."""
    torch.manual_seed(settings.seed)
    head = Head(features.shape[1], model.info["principal_vectors"], vectors.shape[1])
    chosen = Method(**model.info["parameters"])
    with TemporaryDirectory() as work:
        train(
            head,
            feature_batches(features, settings.batch, device),
            rows,
            labels.tocsr(),
            vectors,
            chosen,
            settings,
            checkpoint=Path(work) / "checkpoint.pt",
            key="calibration",
            device=device,
        )

    def embed(photos: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return head.eval()(torch.from_numpy(features[photos]).to(device)).cpu().numpy()

    return embed


if __name__ == "__main__":
    with plain_exit():
        main()
