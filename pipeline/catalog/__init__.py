"""DuckDB over a store: views, macros, and queries of a user's."""

from pipeline.catalog.views import open_store

__all__ = ["open_store"]
