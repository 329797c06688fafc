"""What a model looked at, for one image: which image, its explanation as a picture and as a page."""
