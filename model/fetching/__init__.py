"""How a model is named, found, fetched and refused. Its weights are not read here."""
