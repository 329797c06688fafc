"""What the files that a source leads to are taken for: shards, or images of a folder. Nothing is left out uncounted.

A source is of one kind. Where files of both kinds lie together, the greater number decides: one archive in a folder of
photographs does not make shards of it, and a few pictures beside shards make no folder of images. A run keeps the kind
that it began with (`Source.of_kind`).
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path

from pipeline.annotations.side_files import SIDE_SUFFIXES
from pipeline.errors import SourceError
from pipeline.sources.folder_metadata import METADATA_NAMES
from pipeline.sources.image_folder import image_files, stem_of, suffix_of
from pipeline.sources.sample import is_image_suffix, looks_like_image
from pipeline.sources.shard import FileVersion, ImageFile, Shard, Source, kind_of_file
from pipeline.storage.files import HTTP_PROTOCOLS
from pipeline.text import valid_unicode

EXPECTED = (
    "expected a directory or prefix with tars, zips, Parquet files or images, some of these files, a glob, a pattern "
    "{00000..00099}.tar or an @list"
)
# Files of a store, which may lie within the source.
_STORED = re.compile(
    r"(?P<store>(?:.*/)?)(?:(?:images|labels|spellings)/run=[^/]+/[^/]+\.parquet"
    r"|runs/[^/]+/(?:jobs/[^/]+|run|lock-\d+)\.json)"
)
_EMBEDDINGS = re.compile(r"(?P<store>(?:.*/)?)embeddings/[^/]+\.parquet")
# Thumbnails, bins and forks of files that storage boxes and operating systems keep beside what is theirs.
_SYSTEM_FOLDERS = frozenset(
    {"@eaDir", "#recycle", "#snapshot", "@Recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX"}
)
_TABLE_FOLDERS = frozenset({"_delta_log", "_temporary", "_spark_metadata"})
_START_BYTES = 12
_MAX_SUFFIX_CHARACTERS = 12
_MAX_KINDS_NAMED = 12
# `s3:` and what is between the two slashes behind it.
_N_PARTS_OF_PROTOCOL = 2

NO_SUFFIX = "file without suffix"
SYSTEM_FILE = "system file"
LINK = "link"
SPECIAL_FILE = "special file"
CLOSED_FOLDER = "folder without permission"
SUPERSEDED_FILE = "file of a former version"
UNREADABLE_FILE = "unreadable file"


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was listed; what a listing does not tell is None."""

    url: str
    size: int | None = None
    etag: str | None = None
    modified: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What one SOURCE argument leads to."""

    root: str
    """The directory that names are relative to; empty for lists."""
    files: list[File]
    left_out: Counter[str] = field(default_factory=Counter)
    """What the listing itself left out, by kind."""
    beside: list[File] = field(default_factory=list)
    """Files that lie beside those that were named, for captions and truth; they count as nothing."""


@dataclass(slots=True)
class _Sorted:
    """Files by what they are taken for."""

    shards: list[File] = field(default_factory=list)
    images: list[File] = field(default_factory=list)
    others: list[File] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def make_source(given: str, found: Sequence[Found]) -> Source:
    """The source that the files of all arguments make together.

    Args:
        given: the arguments as messages name them.

    Raises SourceError where there is neither a shard nor an image, or where names clash.
    """
    root = _common_root([one.root for one in found])
    files = list({file.url: file for one in found for file in one.files}.values())
    beside = list({file.url: file for one in found for file in one.beside}.values())
    sorted_files = _sort(root, files)
    for one in found:
        sorted_files.left_out.update(one.left_out)
    if not sorted_files.shards and not sorted_files.images:
        what = f" ({describe_skipped(_count(sorted_files.left_out, sorted_files.others))})" if files else ""
        raise SourceError(f"{given} holds {len(files)} files, none of them a shard or an image{what}; {EXPECTED}")
    _check_one_kind(found)
    of_images = _image_source(given, root, sorted_files, beside) if sorted_files.images else None
    if not sorted_files.shards:
        assert of_images is not None
        return of_images
    of_shards = _shard_source(given, root, sorted_files)
    if of_images is None:
        return of_shards
    is_folder = len(sorted_files.images) > len(sorted_files.shards)
    return _with_other(of_images, of_shards) if is_folder else _with_other(of_shards, of_images)


def _check_one_kind(found: Sequence[Found]) -> None:
    """Raises SourceError where one argument leads to nothing but shards, and another to nothing but images."""
    kinds: dict[str, str] = {}
    for one in found if len(found) > 1 else ():
        sorted_files = _sort(one.root, one.files)
        if bool(sorted_files.shards) != bool(sorted_files.images):
            kinds["shards" if sorted_files.shards else "images"] = one.root or one.files[0].url
    if len(kinds) > 1:
        raise SourceError(f"{kinds['shards']} has shards, and {kinds['images']} has images; label them as two runs")


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """What was left out, as text: `12 .mp4, 3 .heic, 1 link`."""
    parts = [_counted(kind, n) for kind, n in list(skipped.items())[:_MAX_KINDS_NAMED]]
    if n_more := sum(list(skipped.values())[_MAX_KINDS_NAMED:]):
        parts.append(f"{n_more:,} others")
    return ", ".join(parts)


def shard_name(root: str, url: str) -> str:
    """A shard's name: its path below the root, without `.tar` or `.parquet`; below no root, its whole path."""
    path = _path_below(root, url)
    for suffix in (".tar", ".parquet"):
        if path.lower().endswith(suffix) and posixpath.basename(path)[: -len(suffix)]:
            path = path[: -len(suffix)]
            break
    return valid_unicode(path)


def without_query(url: str) -> str:
    """A web address without what may differ each time, such as a signature."""
    return re.split("[?#]", url, maxsplit=1)[0] if url.startswith(HTTP_PROTOCOLS) else url


def _path_below(root: str, url: str) -> str:
    return without_query(url).removeprefix(root).split("://", 1)[-1].lstrip("/")


def _common_root(roots: Sequence[str]) -> str:
    """The deepest directory above all roots; empty where there is none."""
    if len(set(roots)) == 1:
        return roots[0]
    if not all(roots):
        return ""
    levels = zip(*(root.split("/") for root in roots), strict=False)
    common = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    if all(root.startswith("/") for root in roots):
        return "/".join(common) or "/"
    # The protocol alone is no directory: names below it would not begin with the bucket of one root.
    return "/".join(common) if len(common) > _N_PARTS_OF_PROTOCOL else ""


def _sort(root: str, files: Iterable[File]) -> _Sorted:
    by_path = {_path_below(root, file.url): file for file in files}
    stores = {match["store"] for match in map(_STORED.fullmatch, by_path) if match}
    found = _Sorted()
    tables: list[File] = []
    # Parquet beside a tar or a folder of its stem is the table that img2dataset writes of it.
    stems = {path[:-4] for path in by_path if path.lower().endswith(".tar")}
    stems |= {posixpath.dirname(path) for path in by_path if is_image_suffix(suffix_of(path))}
    for path, file in by_path.items():
        embeddings = _EMBEDDINGS.fullmatch(path)
        if _STORED.fullmatch(path) or (embeddings and embeddings["store"] in stores):
            continue
        kind = kind_of_file(path)
        if _is_system(path if root else posixpath.basename(path), kind):
            found.left_out[SYSTEM_FILE] += 1
        elif kind == "parquet" and path.rpartition(".")[0] in stems:
            tables.append(file)
        elif kind:
            found.shards.append(file)
        elif is_image_suffix(suffix_of(path)) or _looks_like_image(file):
            found.images.append(file)
        else:
            found.others.append(file)
    found.others += tables
    return found


def _is_system(path: str, kind: str | None) -> bool:
    """Whether a file is none of the user's: another program keeps it there for itself."""
    *folders, name = path.split("/")
    if not _SYSTEM_FOLDERS.isdisjoint(folders):
        return True
    if not _TABLE_FOLDERS.isdisjoint(folders) and not is_image_suffix(suffix_of(name)):
        return True
    # Spark and all that follow it read no table from names that begin so. Cameras write photographs named _DSC0001.
    return kind == "parquet" and any(part.startswith("_") and "=" not in part for part in (*folders, name))


def _looks_like_image(file: File) -> bool:
    """Whether a local file without a suffix begins like an image; elsewhere a look would cost a request for each."""
    if suffix_of(file.url) or "://" in file.url or (file.size or 0) < _START_BYTES:
        return False
    try:
        with Path(file.url).open("rb") as stream:
            return looks_like_image(stream.read(_START_BYTES))
    except OSError:
        return False


def _shard_source(given: str, root: str, found: _Sorted) -> Source:
    if not all(without_query(file.url).startswith(root.rstrip("/") + "/") for file in found.shards):
        root = ""
    by_name: dict[str, Shard] = {}
    # Small letters first: of `a.tar` and `a.TAR` the former is called `a`.
    for file in sorted(found.shards, key=lambda file: file.url.swapcase()):
        kind = kind_of_file(without_query(file.url))
        assert kind is not None
        name = shard_name(root, file.url)
        if name in by_name:
            name = valid_unicode(_path_below(root, file.url))
        shard = Shard(name, file.url, kind, file.size, file.etag, file.modified)
        other = by_name.setdefault(shard.name, shard)
        if other is not shard:
            raise SourceError(
                f"{other.url} and {shard.url} would share the name {shard.name!r}; label them as two runs"
            )
    skipped = _count(found.left_out, found.others)
    return Source(given, root, sorted(by_name.values(), key=lambda shard: shard.url), skipped=skipped)


def _image_source(given: str, root: str, found: _Sorted, beside: Sequence[File]) -> Source:
    if web := [file.url for file in found.images if file.url.startswith(HTTP_PROTOCOLS)]:
        raise SourceError(
            f"{given} names {len(web)} images on web servers, the first is {web[0]}; download them with img2dataset, "
            "which limits rate and size and tries again, and label what it writes"
        )
    if not root:
        root = _storage_root([file.url for file in found.images], given)

    def below(files: Iterable[File]) -> dict[str, FileVersion]:
        prefix = root.rstrip("/") + "/"
        return {
            file.url.removeprefix(prefix): FileVersion(file.size or 0, file.etag, file.modified or 0.0)
            for file in files
        }

    images = below(found.images)
    files = image_files({**below(beside), **below(found.others), **images}, images)
    taken = _side_files(files)
    others = [file for file in found.others if file.url.removeprefix(root.rstrip("/") + "/") not in taken]
    others = [file for file in others if posixpath.basename(file.url) not in METADATA_NAMES]
    return Source(given, root, images=files, skipped=_count(found.left_out, others))


def _side_files(files: Iterable[ImageFile]) -> set[str]:
    """Paths of the side files that belong to images, those over the limit included."""
    stems = {stem_of(file.path) for file in files}
    given = {path for file in files for path in file.side_files}
    return given | {f"{stem}.{suffix}" for stem in stems for suffix in SIDE_SUFFIXES}


def _storage_root(urls: Sequence[str], given: str) -> str:
    """What paths of listed images are relative to, however many the list will have one day: the disk, or the bucket."""
    roots = {"/" if url.startswith("/") else "/".join(url.split("/")[:3]) for url in urls}
    if len(roots) > 1:
        storages = ", ".join(sorted(roots))
        raise SourceError(f"{given} names images on several storages ({storages}); label them as several runs")
    return roots.pop()


def _with_other(source: Source, other: Source) -> Source:
    """A source that may also be taken as another one; each counts what it would leave out of the other."""
    return replace(_beside(source, other), other=_beside(other, source))


def _beside(source: Source, left: Source) -> Source:
    """The source, which leaves out what another one of the same files would take."""
    names = [file.path for file in left.images] or [without_query(shard.url) for shard in left.shards]
    kind, others = ("a folder of images", "shards") if source.images else ("shards", "images")
    note = f"{source.given} is taken for {kind}; {len(names)} {others} in it are left out, and can be labelled by name"
    skipped = _count(Counter(source.skipped), [File(name) for name in names])
    return replace(source, skipped=skipped, notes=[note])


def _count(left_out: Counter[str], files: Iterable[File]) -> dict[str, int]:
    """Files by kind, together with what is counted already; most first."""
    counted = left_out + Counter(_kind_of(without_query(file.url)) for file in files)
    return dict(sorted(counted.items(), key=lambda kind: (-kind[1], kind[0])))


def _kind_of(path: str) -> str:
    suffix = suffix_of(path)
    if not suffix:
        return NO_SUFFIX
    is_plain = suffix.isascii() and suffix.isalnum() and len(suffix) <= _MAX_SUFFIX_CHARACTERS
    return f".{suffix}" if is_plain else "file of another kind"


def _counted(kind: str, n: int) -> str:
    if n == 1 or kind.startswith("."):
        return f"{n:,} {kind}"
    return f"{n:,} {re.sub('file|folder|link', lambda word: word[0] + 's', kind, count=1)}"
