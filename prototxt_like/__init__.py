"""Caffe's file formats (prototxt, caffemodel, solverstate, binaryproto, and older forms); nets written in Python."""
