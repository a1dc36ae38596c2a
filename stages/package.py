"""Package the model for serving in served/, and build a BentoML model and a Bento in bentos/."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from zerotag.data.dataset import Dataset
from zerotag.errors import ZerotagError, plain_exit
from zerotag.evaluation.calibration import Calibration
from zerotag.extras import requirements
from zerotag.files import write_aside
from zerotag.registry.drift import profile
from zerotag.serving.package import PackageSettings, git_revision, write_package
from zerotag.settings import from_params, read_params
from zerotag.words.text_encoders import is_sentence_transformer
from zerotag.words.vectors import WordSettings, lexicon_of
from zerotag.words.vocabulary import Vocabulary

LICENCES = {
    "code": "zerotag: Apache-2.0. Network definitions: timm, Apache-2.0.",
    "weights": "The backbone's weights come from {weights}; the pip package of EfficientNet-Lite0 is Apache-2.0. They "
    "were trained on ImageNet, whose photographs are for non-commercial research: judge for yourself what that means.",
    "words": "Word vectors from {words}; GloVe is under the Public Domain Dedication and License 1.0, MiniLM under "
    "Apache-2.0.",
    "photos": "Trained on {source}; the licence of these photographs is their owner's matter.",
}

# Of a model's evaluation, where there are such files.
MORE = ("intervals", "behaviour")


def main() -> None:
    params = read_params()
    settings = from_params(PackageSettings, params.get("package"), "package")
    packages = {name: version(name) for name in requirements("serve")}
    exported = json.loads(Path("exported/export.json").read_text(encoding="utf-8"))
    backbone, method = exported["backbone"], exported["method"]
    folder = Path(f"models/{backbone}/{method}")
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    vocabulary = Vocabulary.read(folder, folder / "vocabulary.csv")
    calibration = Path("calibration/calibration.json").read_bytes()
    network = Path("exported/model.onnx")
    # A content hash: the same model packaged twice has the same version.
    content = sha256(network.read_bytes() + calibration + vocabulary.digest.encode()).hexdigest()
    training = {key: value for key, value in model.items() if key not in ("mean", "std")}
    licences = {
        key: text.format(weights=model["weights"], words=model["data"]["words"], source=params["source"])
        for key, text in LICENCES.items()
    }
    evaluation = Path(f"evaluation/{backbone}/{method}")
    info: dict[str, Any] = {
        "name": "zerotag",
        "version": content[:12],
        "backbone": backbone,
        "method": method,
        "size": model["size"],
        "principal_vectors": model["principal_vectors"],
        "dimensions": vocabulary.vectors.shape[1],
        "metrics": json.loads((evaluation / "metrics.json").read_text(encoding="utf-8")),
        **{
            name: json.loads(file.read_text(encoding="utf-8"))
            for name in MORE
            if (file := evaluation / f"{name}.json").is_file()
        },
        "training": training,
        "export": exported,
        "git": git_revision(),
        "packages": {"zerotag": version("zerotag"), **packages},
        "licences": licences,
    }
    words = from_params(WordSettings, model["words"], "words")
    with TemporaryDirectory() as work:
        encoder = Path(work) / "encoder" if is_sentence_transformer(words.source) else None
        if encoder:
            from zerotag.packaging.text_encoder import export_text_encoder  # torch is slow to import

            export_text_encoder(words.source, encoder, words.normalise)
        size = settings.encoded_words if encoder else settings.words
        write_package(
            Path("served"),
            network,
            vocabulary,
            lexicon_of(words, size, Path("work/lexicon")),
            Calibration.read(Path("calibration/calibration.json")),
            info,
            size,
            encoder,
            asdict(profile(Dataset.read(Path("prepared")))),
        )
    with write_aside(Path("bentos")) as draft:
        draft.mkdir()
        build_bento(draft, info["version"], licences, packages)
    print(f"served/ and bentos/ hold zerotag:{info['version']}: {backbone}, {method}")


def build_bento(home: Path, model_version: str, licences: dict[str, str], packages: dict[str, str]) -> None:
    """Build a Bento in the project's own BentoML home; writes nothing outside of the project folder.

    Args:
        home: the BentoML home.
        model_version: version of the model and the Bento.
        licences: licence texts of what the Bento contains.
        packages: packages to pin, with their versions.
    """
    home = home.resolve()
    os.environ["BENTOML_HOME"] = str(home)
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    import bentoml  # reads BENTOML_HOME

    tag = f"zerotag:{model_version}"
    with bentoml.models.create(tag, labels={"licence": "see tagger.json"}, metadata={"licences": licences}) as made:
        shutil.copytree("served", made.path, dirs_exist_ok=True)
    project = Path(__file__).resolve().parents[1]
    context = Path("work/bento").resolve()  # not beside the draft: BentoML ignores hidden folders
    shutil.rmtree(context, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "bentofile.yaml")
    shutil.copytree(project / "service", context / "service", ignore=ignored)
    shutil.copytree(project / "src" / "zerotag", context / "zerotag", ignore=ignored)
    serve = {**(read_params().get("serve") or {}), "model": f"bentoml:{tag}"}
    # A Bento's folder may be read-only, and the next model has another one.
    serve |= {"index": "~/.zerotag/index", "log": "~/.zerotag/requests"}
    (context / "params.yaml").write_text(yaml.safe_dump({"serve": serve}), encoding="utf-8")
    pinned = "".join(f"{name}=={installed}\n" for name, installed in packages.items())
    (context / "requirements.txt").write_text(pinned, encoding="utf-8")
    recipe = yaml.safe_load((project / "service" / "bentofile.yaml").read_text(encoding="utf-8"))
    (context / "bentofile.yaml").write_text(yaml.safe_dump({**recipe, "models": [tag]}), encoding="utf-8")
    command = [sys.executable, "-m", "bentoml", "build", "--version", model_version, "."]
    built = subprocess.run(command, cwd=context, capture_output=True, text=True, check=False)
    if built.returncode:
        raise ZerotagError(f"bentoml build failed:\n{built.stdout}{built.stderr}")
    shutil.rmtree(context)


if __name__ == "__main__":
    with plain_exit():
        main()
