"""The sample images that ship with the package, and how such scenes are made."""
