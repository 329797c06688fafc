"""Objective, label tokens, denoising and optimization of the recognizer."""
