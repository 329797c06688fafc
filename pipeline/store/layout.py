"""Where everything lies in a store. No other module builds these paths.

STORE/runs/<run>/run.json                   what the run is made of
STORE/runs/<run>/jobs/<utc-time>.json       one record a job
STORE/runs/<run>/lists/<list>.json         a list of names whose scores the run keeps
STORE/runs/<run>/samples/<sample>.json      how images were drawn for review (`pipeline.store.reviews`)
STORE/runs/<run>/ledger/<part>.parquet     what jobs noted of the files they committed (`pipeline.store.ledger`)
STORE/runs/<run>/reuse/<n>.parquet          whose labels the run may reuse, in order (`pipeline.reuse.order`)
STORE/runs/<run>/lock-<n>.json              while a job holds the run (`pipeline.store.lock`)
STORE/labels/run=<run>/<shard>.parquet
STORE/images/run=<run>/<shard>.parquet      its existence is the shard's commit
STORE/listed/run=<run>/list=<list>/<shard>.parquet   scores of a list of names (`pipeline.store.lists`)
STORE/drawn/run=<run>/<sample>.parquet      the images of a sample
STORE/reviews/run=<run>/<time>-<digest>.parquet   what people say of labels, a file an import
STORE/spellings/run=<run>/<file>.parquet    the distinct labels of a compacted file, named
STORE/embeddings/<model>.parquet            meanings of names, by the digest of the model that gave them

`pipeline.store.ownership` says how files are named, and which one counts where several hold a shard.
"""

from __future__ import annotations

from dataclasses import dataclass

TABLES = ("images", "labels", "spellings")


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of what all runs of a store share."""

    root: str
    """Path or URL of the store, without a slash at its end."""

    @property
    def runs(self) -> str:
        """The folder with one folder for each run's records."""
        return f"{self.root}/runs"

    def table(self, table: str) -> str:
        """The folder of one of `TABLES`, with one folder for each run's files."""
        return f"{self.root}/{table}"

    def embeddings(self, model: str) -> str:
        """The file that keeps the meanings that a model gave to names."""
        return f"{self.root}/embeddings/{model}.parquet"

    def run(self, run: str) -> RunLayout:
        """Paths of one run."""
        return RunLayout(self.root, run)


@dataclass(frozen=True, slots=True)
class RunLayout:
    """Paths of one run."""

    root: str
    """Path or URL of the store, without a slash at its end."""
    run: str
    """The run's name."""

    def below(self, path: str) -> str:
        """A path of this store as it is named in messages: relative to the store."""
        return path.removeprefix(f"{self.root}/")

    @property
    def records(self) -> str:
        """The folder of the run's record and its locks."""
        return f"{self.root}/runs/{self.run}"

    @property
    def record(self) -> str:
        return f"{self.records}/run.json"

    @property
    def jobs(self) -> str:
        """The folder of the jobs' records."""
        return f"{self.records}/jobs"

    def job(self, started: str) -> str:
        """The record of the job that started at this time (ISO 8601)."""
        return f"{self.jobs}/{started.replace(':', '-')}.json"

    @property
    def ledger(self) -> str:
        """The folder of what jobs noted of the files that they committed."""
        return f"{self.records}/ledger"

    @property
    def reuse(self) -> str:
        """The folder of the order in which the run reuses labels."""
        return f"{self.records}/reuse"

    def reuse_part(self, number: int) -> str:
        """A part of that order."""
        return f"{self.reuse}/{number:06d}.parquet"

    @property
    def lists(self) -> str:
        """The folder of the records of the run's lists of names."""
        return f"{self.records}/lists"

    def list_record(self, version: str) -> str:
        """The record of a list of names."""
        return f"{self.lists}/{version}.json"

    @property
    def all_listed(self) -> str:
        """The folder with one folder for each list's files."""
        return f"{self.root}/listed/run={self.run}"

    def listed_folder(self, version: str) -> str:
        """The folder of the files of a list."""
        return f"{self.all_listed}/list={version}"

    def listed(self, version: str, name: str) -> str:
        """A file of listed labels. Its name says of which shards and generations, not which file of images has them."""
        return f"{self.listed_folder(version)}/{name}"

    @property
    def samples(self) -> str:
        """The folder of the records of the run's samples."""
        return f"{self.records}/samples"

    def sample_record(self, sample: str) -> str:
        """The record of a sample."""
        return f"{self.samples}/{sample}.json"

    @property
    def all_drawn(self) -> str:
        """The folder with a file for each sample's images."""
        return f"{self.root}/drawn/run={self.run}"

    def drawn(self, sample: str) -> str:
        """The images of a sample."""
        return f"{self.all_drawn}/{sample}.parquet"

    @property
    def all_reviews(self) -> str:
        """The folder with a file for each import of reviews."""
        return f"{self.root}/reviews/run={self.run}"

    def reviews_file(self, name: str) -> str:
        """An import of reviews."""
        return f"{self.all_reviews}/{name}"

    def lock(self, number: int) -> str:
        return f"{self.records}/lock-{number}.json"

    def temporary(self, name: str) -> str:
        """A file beside the record that is deleted at once; whoever finds it later knows it for a leftover."""
        return f"{self.records}/.{name}.tmp"

    def folder(self, table: str) -> str:
        """The folder of the run's files of one of `TABLES`."""
        return f"{self.root}/{table}/run={self.run}"

    def file(self, table: str, name: str) -> str:
        """A file of one of `TABLES`. Files of one name belong together, whatever their table."""
        return f"{self.folder(table)}/{name}"

    def images(self, name: str) -> str:
        return self.file("images", name)

    def labels(self, name: str) -> str:
        return self.file("labels", name)

    def spellings(self, name: str) -> str:
        return self.file("spellings", name)
