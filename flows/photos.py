"""Tag or index photographs on a Ray cluster, with the progress and the failures of each shard as artifacts."""

from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed, State

from flows.alerts import alert
from flows.pipeline import stamped
from zerotag.cluster.connect import cluster_address, connected
from zerotag.cluster.index import index_photos
from zerotag.cluster.photos import list_photos
from zerotag.cluster.shards import ShardReport
from zerotag.cluster.tag import tag_photos
from zerotag.errors import ZerotagError
from zerotag.registry.served import package_to_serve
from zerotag.serving.keywords import Wanted
from zerotag.settings import read_params

# Failed photos of a shard that its row of the table names.
_NAMED = 5


@flow(name="photos", flow_run_name=stamped("photos"), on_failure=[alert], on_crashed=[alert])
def photos(what: Literal["tag", "index"], source: str, target: str, model: str = "") -> State:
    """Tag or index photos on the cluster of params.yaml: cluster.address. A run that was killed goes on.

    Args:
        what: `tag` writes Parquet files, `index` updates a search index.
        source: a folder, a prefix of an object store, or a table of URLs.
        target: the folder of the Parquet files, or the database of the index; or s3://….
        model: folder of a packaged model; empty for the one that answers.
    """
    log = get_run_logger()
    progress: Any = create_progress_artifact(0.0, key="photos", description=f"{what} {source}")
    rows: list[dict[str, Any]] = []

    def report(shard: ShardReport) -> None:
        failed = len(shard.failed)
        rows.append(
            {
                "shard": shard.number + 1,
                "photos": shard.photos,
                "failed": failed,
                "seconds": round(shard.seconds, 1),
                "node": "an earlier run" if shard.kept else shard.node,
                "why": shard.error or "; ".join(list(shard.failed.values())[:_NAMED]),
            }
        )
        log.info("shard %d of %d: %d photos, %d failed%s", shard.number + 1, shard.shards, shard.photos, failed,
                 f": {shard.error}" if shard.error else "")  # fmt: skip
        update_progress_artifact(progress, 100 * len(rows) / shard.shards)

    package = Path(model) if model else package_to_serve()
    address = cluster_address(read_params())
    if not address:
        raise ZerotagError("params.yaml: cluster.address is empty; set the address of a Ray cluster, or local.")
    try:
        with connected(address) as spread:
            assert spread
            if what == "tag":
                done = tag_photos(spread, list_photos([source]), package, Wanted(), target, report=report)
                said = f"{done.photos - done.failed} photos tagged, {done.failed} failed"
            else:
                update = index_photos(spread, source, package, target, report=report)
                said = f"{update.added} added, {update.unchanged} unchanged, {len(update.refused)} failed"
    except ZerotagError as error:
        return Failed(message=str(error))
    finally:
        create_table_artifact(sorted(rows, key=lambda row: row["shard"]), key="shards", description=f"{what} {source}")
    return Completed(message=said)
