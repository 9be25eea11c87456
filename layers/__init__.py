"""Every layer: forward, backward, shapes and ONNX form, in families as Caffe's catalogue groups them.

`imae.layers.registry` finds a layer by its type; the file is named after it.
"""

from imae.layers.waiting import spin_briefly

spin_briefly()  # before anything below loads torch
