"""Captions and labels from files that list images, and the images that they are of."""

from __future__ import annotations

import gzip
import posixpath
import re
import zlib
from collections.abc import Callable, Iterable, Mapping

from pipeline.annotations.annotation import Annotation, Annotations, CaptionsError, Listed
from pipeline.annotations.list_formats import read_json, read_json_lines, read_table
from pipeline.storage.files import open_filesystem, storage_errors

_GZIP = b"\x1f\x8b"
_READERS: dict[str, Callable[[str, bytes, Listed], None]] = {
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_table,
    ".tsv": read_table,
}
# What Label Studio puts in front of the name of a file that was uploaded.
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")


def read_captions(urls: Iterable[str]) -> Listed:
    """What files say of images, of all files together.

    Args:
        urls: `.json` in one of four forms (COCO captions; COCO instances, whose categories become labels; a list of
            objects with a file name; {file name: caption or list of captions}), `.jsonl` with an object a line, or
            `.csv` or `.tsv` with a header. An object or row has a file name, and captions, or labels (in a table
            separated by semicolons), or both. A file may have many. Each may be compressed: `.gz`.

    An entry that cannot be taken costs itself. Raises CaptionsError saying what was expected where nothing of a file
    can be taken; StorageError where it cannot be opened.
    """
    listed = Listed()
    for url in urls:
        filesystem, path = open_filesystem(url)
        with storage_errors(f"read the captions {url}"):
            content = filesystem.cat_file(path)
        read_list(url, content, listed)
    return listed


def read_list(url: str, content: bytes, listed: Listed) -> None:
    """Adds what one file says. Raises CaptionsError where nothing of it can be taken."""
    name = url.lower().removesuffix(".gz")
    reader = _READERS.get(posixpath.splitext(name)[1])
    if reader is None:
        raise CaptionsError(
            f"{url} is neither .json, .jsonl, .csv nor .tsv; expected COCO annotations, objects with a file name, a "
            "JSON mapping or a table with a header"
        )
    own = Listed()
    try:
        reader(url, gzip.decompress(content) if content.startswith(_GZIP) else content, own)
    except UnicodeDecodeError as error:
        raise CaptionsError(f"{url} is not UTF-8 text: {error}; save it as UTF-8 (in Excel: CSV UTF-8)") from error
    except (OSError, EOFError, zlib.error) as error:
        raise CaptionsError(f"{url} cannot be decompressed: {error}") from error
    if own.problems and all(annotation.is_empty for annotation in own.annotations.values()):
        more = f" ({len(own.problems):,} entries are like this one)" if len(own.problems) > 1 else ""
        raise CaptionsError(f"{own.problems[0]}{more}")
    listed.problems += own.problems
    for file, annotation in own.annotations.items():
        listed.of(file).merge(annotation)


def match_files(annotations: Mapping[str, Annotation], files: Iterable[str]) -> tuple[Annotations, list[str]]:
    """Annotations by the file they belong to, and the names that belong to none.

    A name belongs to the file of that path, or else to the one file of which it is the end (`1.jpg` to `val/1.jpg`), or
    else to the longest that is its own end (`coco/val/1.jpg` to `val/1.jpg`). Where there is none, capitals do not
    count, nor the suffix of a name without one, nor what Label Studio puts in front. Names without a caption or label
    are not reported.

    Args:
        annotations: by file name.
        files: paths relative to the folder of images.

    Raises CaptionsError for a name that may be any of several files, and for a file that may have several names.
    """
    index = _FileIndex(files)
    matched: Annotations = {}
    names: dict[str, str] = {}
    unmatched = []
    for name, annotation in annotations.items():
        found = index.find(name)
        if len(found) > 1:
            raise CaptionsError(f"{name} in the captions may be {found[0]} or {found[1]}; name files by their path")
        if found:
            other = names.setdefault(found[0], name)
            if not _is_end(name, other) and not _is_end(other, name):
                raise CaptionsError(f"{other} and {name} in the captions may both be {found[0]}; pack the folder above")
            matched.setdefault(found[0], Annotation()).merge(annotation)
        elif not annotation.is_empty:
            unmatched.append(name)
    return matched, unmatched


class _FileIndex:
    """Files by how a list may name them."""

    def __init__(self, files: Iterable[str]) -> None:
        self._exact: dict[str, list[str]] = {}
        self._folded: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for file in files:
            base = posixpath.basename(file)
            self._exact.setdefault(base, []).append(file)
            self._folded.setdefault(base.casefold(), []).append(file)
            self._stems.setdefault(posixpath.splitext(base)[0].casefold(), []).append(file)

    def find(self, name: str) -> list[str]:
        """The files that a name may mean: several, where it is too short."""
        if found := _files_named(name, self._exact.get(posixpath.basename(name), [])):
            return found
        base = posixpath.basename(name)
        for other in (name, *([_UPLOADED.sub("", base, count=1)] if _UPLOADED.match(base) else [])):
            key = posixpath.basename(other).casefold()
            for candidates, of_file in ((self._folded, str), (self._stems, _without_suffix)):
                spelled = {of_file(file).casefold(): file for file in candidates.get(key, [])}
                if found := _files_named(other.casefold(), list(spelled)):
                    return [spelled[file] for file in found]
        return []


def _without_suffix(file: str) -> str:
    return posixpath.splitext(file)[0]


def _files_named(name: str, candidates: list[str]) -> list[str]:
    if name in candidates:
        return [name]
    longer = [file for file in candidates if _is_end(name, file)]
    shorter = [file for file in candidates if _is_end(file, name)]
    return longer or sorted(shorter, key=len)[-1:]


def _is_end(short: str, long: str) -> bool:
    return short == long or long.endswith("/" + short)
