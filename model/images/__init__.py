"""From encoded images to what a model sees of them. Needs no torch until pixels are resized or normalised."""
