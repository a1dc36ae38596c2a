"""Write the report that compares the models, and show the starter on the sample photographs."""

from dataclasses import asdict
from pathlib import Path

from zerotag.data.dataset import Dataset
from zerotag.errors import plain_exit
from zerotag.evaluation.calibration import Calibration
from zerotag.evaluation.report import ReportSettings, Run, Starter, write_report
from zerotag.registry.choice import best_model
from zerotag.registry.served import starter_package
from zerotag.samples import samples
from zerotag.serving.tagger import Tagger
from zerotag.settings import from_params, read_params
from zerotag.words.vocabulary import Vocabulary

with plain_exit():
    params = read_params()
    runs = {
        (backbone, method): Run.read(Path(f"evaluation/{backbone}/{method}"), Path(f"models/{backbone}/{method}"))
        for backbone in params["backbones"]
        for method in params["methods"]
    }
    best = runs[best_model(Path("evaluation"), params["backbones"], params["methods"], params["best_by"])]
    tagger = Tagger(starter_package())
    answers = [(each, tagger.tag(each.file.read_bytes(), each.file.name)) for each in samples()]
    write_report(
        Path("report"),
        list(runs.values()),
        best,
        Calibration.read(Path("calibration/calibration.json")),
        Dataset.read(Path("prepared")),
        Vocabulary.read(Path("words"), Path("split.csv")),
        Starter([(each, [asdict(tag) for tag in tags]) for each, tags in answers], tagger.calibration_figures),
        from_params(ReportSettings, params["report"], "report"),
    )
    print(f"The best model is {best.name}. Open report/index.html")
