"""Layers over sequences, unrolled in time: LSTM and RNN."""
