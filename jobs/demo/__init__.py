"""The images that come with the package, and how such scenes are made."""
