"""Normalisation by statistics: of the batch, of images, of channels, of what is around a value."""
