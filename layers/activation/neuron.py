"""What layers that map each element of one bottom to one of the top share: Caffe's NeuronLayer."""

from imae.layers.layer import Layer, Shapes


class Neuron(Layer):
    """y = f(x), element by element."""

    capturable = True

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Shape as the bottom's."""
        return bottoms
