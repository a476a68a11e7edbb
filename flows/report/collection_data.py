"""What the report of collections shows, read from the published catalog and the files it names."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from dalle_datasets.catalog.queries import NoFilesError
from dalle_datasets.store.layout import Layout
from flows.report.data import EXAMPLE_SIDE, Example, Row, drop_examples, rows
from flows.report.downloaded import find_images
from flows.report.pictures import Embedded, embed_bytes

NUM_HOSTS = 500
NUM_CLUSTERS, NUM_MEMBERS = 12, 8


@dataclass(frozen=True, slots=True)
class Member:
    """One of the candidates that show the same picture."""

    image: Embedded | None
    caption: str
    url: str
    outcome: str
    """kept, or the reason why it was left out."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A picture that was found more than once."""

    num_members: int
    num_kept: int
    members: list[Member]
    """The first of them, what was kept before the others."""


@dataclass(frozen=True, slots=True)
class CollectionData:
    """Everything on the page."""

    funnel: list[Row]
    sources: list[Row]
    hosts: list[Row]
    runs: list[Row]
    """Collections, newest first."""
    changes: list[Row]
    """The newest collection of each source against the one before."""
    failures: list[Row]
    drops: list[Row]
    reasons: list[Row]
    """Numbers of candidates by outcome in the newest collection of each source and in the one before."""
    drop_examples: dict[tuple[str, str], list[Example]]
    languages: list[Row]
    caption_words: list[Row]
    image_sizes: list[Row]
    aspect_ratios: list[Row]
    clusters: list[Cluster]


def collect_collection(layout: Layout) -> CollectionData:
    """Read all of it. Raises `ValueError` when nothing was collected, or nothing has been published."""
    sources = rows(layout, "funnel_by_source")
    if not sources:
        raise ValueError(f"{layout.published_catalog} holds no candidates yet; run `dalle run collect_pairs` first")
    return CollectionData(
        funnel=rows(layout, "funnel"),
        sources=sources,
        hosts=rows(layout, "funnel_by_host", limit=NUM_HOSTS),
        runs=rows(layout, "collections"),
        changes=_of_files(layout, "collection_changes"),
        failures=rows(layout, "download_failures"),
        drops=rows(layout, "drop_reasons"),
        reasons=rows(layout, "collection_reasons"),
        drop_examples=drop_examples(layout, per_reason=4),
        languages=_of_files(layout, "languages"),
        caption_words=_of_files(layout, "caption_words"),
        image_sizes=_of_files(layout, "image_sizes"),
        aspect_ratios=_of_files(layout, "aspect_ratios"),
        clusters=_clusters(layout, _of_files(layout, "duplicate_clusters", limit=NUM_CLUSTERS, members=NUM_MEMBERS)),
    )


def _of_files(layout: Layout, query: str, **params: int) -> list[Row]:
    """Rows of a query that reads Parquet; none where there are no such files, e.g. because pairs came from another machine."""
    try:
        return rows(layout, query, **params)
    except NoFilesError:
        return []


def _clusters(layout: Layout, found: Sequence[Row]) -> list[Cluster]:
    images = find_images(
        layout, {source: {row["candidate_id"] for row in found if row["source"] == source} for source in {row["source"] for row in found}}
    )
    clusters = []
    for _, group in groupby(found, key=lambda row: row["cluster"]):
        members = list(group)
        shown = [
            Member(
                embed_bytes(images[row["candidate_id"]], EXAMPLE_SIDE) if row["candidate_id"] in images else None,
                row["caption"],
                row["image_url"],
                row["outcome"],
            )
            for row in members
        ]
        clusters.append(Cluster(members[0]["num_members"], members[0]["num_kept"], shown))
    return clusters
