"""Vision-language models of the Hugging Face hub as decoders of branches, whatever their architecture."""
