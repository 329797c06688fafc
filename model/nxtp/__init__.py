"""The recognizer of the NXTP paper: CLIP's encoder, a projector and a truncated Llama that decodes labels."""
