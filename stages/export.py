"""Export the best model to ONNX, and measure the speed and loss of lower precisions."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from zerotag.data.dataset import Dataset
from zerotag.errors import ZerotagError, plain_exit
from zerotag.files import write_aside
from zerotag.packaging.export import (
    ExportSettings,
    Trial,
    check_agreement,
    compare_with_torch,
    export_network,
    to_half,
    to_int8,
    try_precision,
)
from zerotag.registry.choice import best_model
from zerotag.runtime import Runtime
from zerotag.settings import from_params, read_params
from zerotag.training.features import pixels_of
from zerotag.training.model import load_model

BATCH = 64


def main() -> None:
    params = read_params()
    settings = from_params(ExportSettings, params["export"], "export")
    backbone, method = best_model(Path("evaluation"), params["backbones"], params["methods"], params["best_by"])
    model = load_model(Path(f"models/{backbone}/{method}"))
    dataset = Dataset.read(Path("prepared"))
    random = np.random.default_rng(params["seed"])

    def pixels(rows: np.ndarray) -> np.ndarray:
        batches = pixels_of(dataset, rows, model.info["size"], BATCH)
        return np.concatenate(list(tqdm(batches, desc="photos", unit="batch", total=-(-rows.size // BATCH))))

    def some(rows: np.ndarray, count: int) -> np.ndarray:
        return np.sort(random.choice(rows, min(count, rows.size), replace=False))

    test_rows = some(dataset.test, settings.eval_photos)
    pictures = pixels(test_rows)
    labels = dataset.labels[test_rows][:, dataset.columns(model.vocabulary.tags)].tocsr()
    with write_aside(Path("exported")) as draft:
        draft.mkdir()
        fp32 = draft / "fp32.onnx"
        export_network(model, fp32)
        agreement = compare_with_torch(model, Runtime(fp32), pictures[: settings.check_photos])
        check_agreement(agreement)
        print(
            f"{backbone} {method}: scores differ from torch by at most {agreement.largest_difference:.1e}, "
            f"same ten best tags in {agreement.same_top10} of {agreement.photos} pictures"
        )
        table: list[Trial] = []
        for precision in dict.fromkeys(("fp32", settings.precision, *settings.compare)):
            file = draft / f"{precision}.onnx"
            if precision == "fp16":
                to_half(fp32, file)
            elif precision == "int8":
                to_int8(fp32, file, pixels(some(dataset.train, settings.calibration_photos)))
            fp32_trial = table[0] if table else None
            trial = try_precision(
                file, precision, pictures, labels, model.vocabulary.vectors, fp32_trial, settings.max_loss
            )
            table.append(trial)
            print(f"  {trial}")
        chosen = next(trial for trial in table if trial.precision == settings.precision)
        if not chosen.offered:
            lost = "an unknown number of" if chosen.loss is None else f"{chosen.loss:.2f}"
            raise ZerotagError(
                f"params.yaml: export.precision = int8 loses {lost} mAP points on this model, "
                f"more than export.max_loss = {settings.max_loss}. Use fp32."
            )
        (draft / f"{settings.precision}.onnx").rename(draft / "model.onnx")
        for rest in draft.glob("*.onnx"):
            if rest.name != "model.onnx":
                rest.unlink()
        content = {
            "backbone": backbone,
            "method": method,
            "precision": settings.precision,
            "agreement": asdict(agreement),
            "eval_photos": len(test_rows),
            "precisions": [asdict(trial) for trial in table],
        }
        (draft / "export.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with plain_exit():
        main()
