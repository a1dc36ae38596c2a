"""Write the best model's network as ONNX, and measure what smaller number formats gain and lose."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from zerotag.choice import best_model
from zerotag.dataset import Dataset
from zerotag.errors import ZerotagError, plain_exit
from zerotag.evaluation import score_matrix
from zerotag.export import (
    ExportSettings,
    check_agreement,
    compare_with_torch,
    export_network,
    latency,
    to_half,
    to_int8,
)
from zerotag.files import write_aside
from zerotag.metrics import average_precision
from zerotag.model import load_model
from zerotag.photos import open_photo
from zerotag.runtime import Runtime, to_pixels
from zerotag.settings import from_params, read_params


@dataclass(frozen=True)
class Trial:
    """What a number format costs and brings, on the test photos; loss and speed are against fp32."""

    precision: str
    map: float
    loss: float
    seconds: float
    speed: float
    megabytes: float
    offered: bool


def main() -> None:
    params = read_params()
    settings = from_params(ExportSettings, params["export"], "export")
    backbone, method = best_model(Path("evaluation"), params["backbones"], params["methods"], params["best_by"])
    model = load_model(Path(f"models/{backbone}/{method}"))
    dataset = Dataset.read(Path("prepared"))
    random = np.random.default_rng(params["seed"])

    def pixels(rows: np.ndarray) -> np.ndarray:
        return np.stack([to_pixels(open_photo(dataset.photo_bytes(row), str(row)), model.info["size"]) for row in rows])

    def some(rows: np.ndarray, count: int) -> np.ndarray:
        return np.sort(random.choice(rows, min(count, rows.size), replace=False))

    judged = some(dataset.test, settings.judge_photos)
    pictures = pixels(judged)
    labels = dataset.labels[judged][:, dataset.columns(model.vocabulary.tags)].tocsr()
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
            runtime = Runtime(file)
            principal = np.concatenate([runtime(part) for part in np.array_split(pictures, -(-len(pictures) // 16))])
            precisions = average_precision(score_matrix(principal, model.vocabulary.vectors), labels)
            figure, seconds = 100 * float(np.nanmean(precisions)), latency(runtime, pictures)
            loss = table[0].map - figure if table else 0.0
            speed = table[0].seconds / seconds if table else 1.0
            offered = precision != "int8" or loss <= settings.max_loss
            table.append(Trial(precision, figure, loss, seconds, speed, file.stat().st_size / 1e6, offered))
            print(
                f"  {precision}: GZSL mAP {figure:.2f} ({-loss:+.2f}), {1000 * seconds:.1f} ms a photo "
                f"({speed:.2f} times as fast), {table[-1].megabytes:.1f} MB"
                + ("" if offered else f": loses more than {settings.max_loss} points, not offered")
            )
        chosen = next(trial for trial in table if trial.precision == settings.precision)
        if not chosen.offered:
            raise ZerotagError(
                f"params.yaml: export.precision = int8 loses {chosen.loss:.2f} mAP points on this model, "
                f"more than export.max_loss = {settings.max_loss}. Take fp32."
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
            "judged_photos": len(judged),
            "precisions": [asdict(trial) for trial in table],
        }
        (draft / "export.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with plain_exit():
        main()
