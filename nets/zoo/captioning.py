"""LRCN: Donahue et al. 2015, "Long-term recurrent convolutional networks for visual recognition and description".

Captions by two layers of LSTM, factored, over a CaffeNet whose scores enter the second: Figure 3, LRCN-2f, in the form
of examples/coco_caption/lrcn.prototxt of LisaAnne/lisa-caffe-public, with its names. The paper has no count; 98,584,025
follow from CaffeNet's and these widths.
"""

from imae.nets.zoo.alexnet import features
from imae.nets.zoo.blocks import WEIGHT_AND_BIAS, gaussian, inner_product, inputs
from imae.prototxt_like.net_spec import L, NetSpec
from imae.prototxt_like.schema import NetParameter

STEPS = 20
"""Words of a sentence that are read at a time; `cont_sentence` is 0 at the first word of one, 1 at the others."""
UNIFORM = {"type": "uniform", "min": -0.08, "max": 0.08}


def lrcn(*, classes: int = 8801, batch: int = 16, units: int = 1000) -> NetParameter:
    """Return the net for `batch` images of 3 x 227 x 227 and as many sentences of `STEPS` words out of `classes`.

    Inputs: `data`; `cont_sentence`, `input_sentence` (the words, with 0 before the first) and `target_sentence` (the
    words, with 0 after the last, -1 where nothing is to be said), of `STEPS` x `batch`. The words' scores are `STEPS` x
    `batch` x `classes`. `units` is the width of the embedding, of each LSTM and of the image's scores.
    """
    n = NetSpec()
    sentence = (STEPS, batch)
    data, cont, words, target = inputs(
        n, data=(batch, 3, 227, 227), cont_sentence=sentence, input_sentence=sentence, target_sentence=sentence
    )
    image = inner_product(n, "fc8", features(n, data, pool_first=True, bias=1), units, weight_filler=gaussian(0.01))
    n.embedding = L.Embed(words, input_dim=classes, num_output=units, bias_term=False, weight_filler=UNIFORM)
    n.lstm1 = L.LSTM(n.embedding, cont, num_output=units, weight_filler=UNIFORM)
    n.lstm2 = L.LSTM(n.lstm1, cont, image, num_output=units, weight_filler=UNIFORM)
    n.predict = L.InnerProduct(n.lstm2, num_output=classes, axis=2, param=WEIGHT_AND_BIAS, weight_filler=UNIFORM)
    n.cross_entropy_loss = L.SoftmaxWithLoss(n.predict, target, loss_weight=20, ignore_label=-1, axis=2)
    n.accuracy = L.Accuracy(n.predict, target, axis=2, ignore_label=-1, include={"phase": "TEST"})
    return n.to_proto("LRCN")
