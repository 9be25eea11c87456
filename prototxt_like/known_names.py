"""Names that exist in Caffe, in its forks or in other libraries but not here, and whose they are.

A file that has one of them is not misspelt: to suggest the nearest name that is here would be wrong.
"""

_CAFFE_LAYERS = """
AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss Convolution Crop Data Deconvolution
Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data HDF5Output HingeLoss Im2col ImageData
InfogainLoss InnerProduct Input LRN LSTM LSTMUnit Log MVN MemoryData MultinomialLogisticLoss PReLU Parameter Pooling
Power Python RNN ReLU Reduction Reshape SPP Scale Sigmoid SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss
Split Swish TanH Threshold Tile WindowData
"""
CAFFE_LAYERS = frozenset(_CAFFE_LAYERS.split())  # the layer types of BVLC's Caffe

_LAYERS_BY_FORK = {
    "SSD": "AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute PriorBox VideoData",
    "Fast and Faster R-CNN": "Proposal ROIPooling RoIPooling SmoothL1Loss",
    "Mask R-CNN": "ROIAlign RoIAlign",
    "R-FCN": "BoxAnnotatorOHEM PSROIPooling SmoothL1LossOHEM SoftmaxWithLossOHEM",
    "DeepLab and PSPNet": "DenseCRF ImageSegData Interp MatRead MatWrite SegAccuracy UniqueLabel",
    "SegNet": "BN DenseImageData Upsample",
    "MobileNet": "ConvolutionDepthwise DepthwiseConvolution ReLU6",
    "ShuffleNet": "ShuffleChannel",
    "SENet": "Axpy",
    "PVANet": "CReLU",
    "FlowNet": (
        "ChannelNorm Correlation Correlation1D CustomData DataAugmentation Downsample FlowAugmentation FlowWarp "
        "GenerateAugmentationParameters L1Loss Lpq Mean Resample"
    ),
    "YOLO": "DetectionEval EvalDetection PassThrough Region RegionLoss Reorg YoloDetectionOutput Yolov3DetectionOutput",
    "NVCaffe": "DetectNetTransformation L2Norm",
    "face recognition": "CenterLoss LabelSpecificAdd LargeMarginInnerProduct MarginInnerProduct TripletLoss",
    "spatial transformers": "SpatialTransformer",
    "deconvolution networks": "MaxUnpooling Unpooling",
    "temporal segment networks": "BatchReduction SegmentConsensus SegmentData",
}
FORK_LAYERS = {layer: fork for fork, layers in _LAYERS_BY_FORK.items() for layer in layers.split()}
"""Layer types that well-known forks of Caffe added, and which, the best known first."""

_SETTINGS_BY_FORK = {
    "SSD": "annotated_data",
    "face recognition": "center_loss",
    "MobileNet": "conv_dw relu6",
    "FlowNet": "correlation",
    "DeepLab and PSPNet": "seg_accuracy",
    "YOLO": "region_loss reorg",
    "spatial transformers": "st",
}
FORK_FIELDS = {f"{name}_param": fork for fork, names in _SETTINGS_BY_FORK.items() for name in names.split()}
"""Fields of LayerParameter that well-known forks of Caffe added, and which."""

RENAMED_FIELDS = {
    ("LayerParameter", "blobs_lr"): ("param", "blobs_lr: 2 is param { lr_mult: 2 }"),
    ("LayerParameter", "weight_decay"): ("param", "weight_decay: 0 is param { decay_mult: 0 }"),
    ("SolverParameter", "learning_rate"): ("base_lr", ""),
    ("SolverParameter", "lr"): ("base_lr", ""),
    ("SolverParameter", "max_iterations"): ("max_iter", ""),
}
"""By message and field: what forks, older versions and other libraries call what this schema has under another name,
that name, and how values translate.
"""

_OTHER_NAMES = """
AdaBound AdaMax AdamW LAMB LARS NAdam RAdam
CELU GELU HardSigmoid HardSwish LeakyReLU Mish RReLU SELU SiLU Softplus
BatchNormalization GroupNorm InstanceNorm LayerNorm
BCELoss CCELoss CELoss HuberLoss KLDivLoss MSELoss NLLLoss
cosine linear multifixed plateau triangular
"""
OTHER_NAMES = frozenset(_OTHER_NAMES.lower().split())
"""Layers, solvers and policies that other libraries and forks have besides, in lower case."""
