"""The data layers; importing this package registers them."""

from imae.layers.data import cifar10_data, digits_data, lmdb_data, mars_data  # noqa: F401
