"""Where the methods come from: one entry a source, named by its key in recipes, run cards and docstrings.

S0 to S4 are the five documents whose systems waferlens rebuilds; `waferlens` marks what is ours.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from waferlens.errors import UsageError


@dataclass(frozen=True, slots=True)
class Source:
    """A document, a paper or a standard."""

    title: str
    authors: str
    """Authors, or the body that issued a standard."""
    year: int | None
    """Year of issue; None where the document bears no date."""
    used: str
    """What waferlens takes from it."""

    def __str__(self) -> str:
        when = f", {self.year}" if self.year is not None else ""
        return f"{self.authors}{when}: {self.title}"


SOURCES: dict[str, Source] = {
    "waferlens": Source("waferlens", "the maintainers", 2025, "what is our own design"),
    # The five documents
    "S0": Source(
        "High Topology SEMI wafers: Height Variation Map Prediction",
        "M. Kalyanaraman, K. Ravichandiran",
        None,
        "wafer station: auto-focus sync, raw reader, height maps by FCRN",
    ),
    "S1": Source(
        "Samsung project report, machine intelligence seminar: depth maps of SEM images by pix2pix",
        "Kwon Junwoo, Kim Sooyoung",
        None,
        "hole station: shallow U-Nets, pix2pix, Noise2Self",
    ),
    "S2": Source(
        "Die Defect Detection for Integrated Circuit using Deep Learning Object Detection Techniques",
        "Wong Tack Hwa",
        2023,
        "package station: region of interest, synthetic defects, detector, pruning",
    ),
    "S3": Source(
        "Depth Estimation from Single Image Using CNN-Residual Network",
        "Tang Hoai Duy, Pham Ha Van Dong",
        2022,
        "wafer station: depth networks with up-projection",
    ),
    "S4": Source(
        "Dacon Study: Samsung AI Challenge, 3D metrology",
        "kimjiil2013",
        2022,
        "hole station: folder layout, autoencoder, CycleGAN",
    ),
    # Simulation of the hole
    "palasantzas-1993": Source(
        "Roughness spectrum and surface width of self-affine fractal surfaces via the K-correlation model",
        "G. Palasantzas",
        1993,
        "spectrum of the contour roughness",
    ),
    "mack-2011": Source(
        "Analytic form for the power spectral density in one, two, and three dimensions",
        "C. A. Mack",
        2011,
        "spectrum of the contour roughness and its discretisation",
    ),
    "seiler-1983": Source(
        "Secondary electron emission in the scanning electron microscope",
        "H. Seiler",
        1983,
        "yield against tilt",
    ),
    "frank-2005": Source(
        "Noise analysis of scanning electron microscopes",
        "L. Frank",
        2005,
        "shot noise of a cascade: more than Poisson",
    ),
    # Networks and training
    "ronneberger-2015": Source(
        "U-Net: Convolutional Networks for Biomedical Image Segmentation",
        "O. Ronneberger, P. Fischer, T. Brox",
        2015,
        "hole-unet-*, generator of hole-pix2pix",
    ),
    "he-2016": Source(
        "Deep Residual Learning for Image Recognition",
        "K. He, X. Zhang, S. Ren, J. Sun",
        2016,
        "ResNet-50, encoder of wafer-fcrn and of depth-cnn-transfer and -residual",
    ),
    "laina-2016": Source(
        "Deeper Depth Prediction with Fully Convolutional Residual Networks",
        "I. Laina, C. Rupprecht, V. Belagiannis, F. Tombari, N. Navab",
        2016,
        "up-projection by interleaved convolutions, reverse Huber loss",
    ),
    "eigen-2014": Source(
        "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network",
        "D. Eigen, C. Puhrsch, R. Fergus",
        2014,
        "coarse network of depth-cnn-fc, measures of depth maps",
    ),
    "silberman-2012": Source(
        "Indoor Segmentation and Support Inference from RGBD Images",
        "N. Silberman, D. Hoiem, P. Kohli, R. Fergus",
        2012,
        "NYU Depth v2",
    ),
    "isola-2017": Source(
        "Image-to-Image Translation with Conditional Adversarial Networks",
        "P. Isola, J.-Y. Zhu, T. Zhou, A. A. Efros",
        2017,
        "hole-pix2pix: PatchGAN, L1 beside the adversarial loss",
    ),
    "mao-2017": Source(
        "Least Squares Generative Adversarial Networks",
        "X. Mao, Q. Li, H. Xie, R. Y. K. Lau, Z. Wang, S. P. Smolley",
        2017,
        "the `mse` adversarial loss",
    ),
    "hinton-2006": Source(
        "Reducing the Dimensionality of Data with Neural Networks",
        "G. E. Hinton, R. R. Salakhutdinov",
        2006,
        "hole-autoencoder",
    ),
    "shi-2016": Source(
        "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network",
        "W. Shi, J. Caballero, F. Huszar, J. Totz, A. P. Aitken, R. Bishop, D. Rueckert, Z. Wang",
        2016,
        "pixel shuffle at both ends of hole-fast",
    ),
    "cao-2019": Source(
        "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond",
        "Y. Cao, J. Xu, S. Lin, F. Wei, H. Hu",
        2019,
        "softmax means, over the columns of wafer-fast",
    ),
    "yuan-2020": Source(
        "Object-Contextual Representations for Semantic Segmentation",
        "Y. Yuan, X. Chen, J. Wang",
        2020,
        "pixels that ask the regions of a field, in wafer-fast",
    ),
    "ding-2021": Source(
        "RepVGG: Making VGG-style ConvNets Great Again",
        "X. Ding, X. Zhang, N. Ma, J. Han, G. Ding, J. Sun",
        2021,
        "branches of hole-fast that become one convolution at inspection",
    ),
    "wang-2022": Source(
        "YOLOv7: Trainable bag-of-freebies sets new state-of-the-art for real-time object detectors",
        "C.-Y. Wang, A. Bochkovskiy, H.-Y. M. Liao",
        2022,
        "package-yolov7-tiny: ELAN blocks, optimal assignment over anchors",
    ),
    "wang-2020": Source(
        "CSPNet: A New Backbone that can Enhance Learning Capability of CNN",
        "C.-Y. Wang, H.-Y. M. Liao, Y.-H. Wu, P.-Y. Chen, J.-W. Hsieh, I.-H. Yeh",
        2020,
        "cross stage partial blocks of roi-yolov5n, -n-seg and -s-seg",
    ),
    "wang-2021": Source(
        "A Normalized Gaussian Wasserstein Distance for Tiny Object Detection",
        "J. Wang, C. Xu, W. Yang, L. Yu",
        2021,
        "half of the boxes' error in package-yolov7-tiny-nwd and its children",
    ),
    "wang-2021-yolor": Source(
        "You Only Learn One Representation: Unified Network for Multiple Tasks",
        "C.-Y. Wang, I.-H. Yeh, H.-Y. M. Liao",
        2021,
        "implicit vectors in the head of package-yolov7-tiny",
    ),
    "liu-2018-coord": Source(
        "An Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution",
        "R. Liu, J. Lehman, P. Molino, F. Petroski Such, E. Frank, A. Sergeev, J. Yosinski",
        2018,
        "neck of package-yolov7-tiny-nwd-coord",
    ),
    "liu-2018-panet": Source(
        "Path Aggregation Network for Instance Segmentation",
        "S. Liu, L. Qi, H. Qin, J. Shi, J. Jia",
        2018,
        "scales that tell each other what they see, up and down, in both YOLO families",
    ),
    "li-2022": Source(
        "Slim-neck by GSConv: A better design paradigm of detector architectures for autonomous vehicles",
        "H. Li, J. Li, H. Wei, Z. Liu, Z. Zhan, Q. Ren",
        2022,
        "neck of package-yolov7-tiny-nwd-slim",
    ),
    "ge-2021-ota": Source(
        "OTA: Optimal Transport Assignment for Object Detection",
        "Z. Ge, S. Liu, Z. Li, O. Yoshie, J. Sun",
        2021,
        "which predictions learn which box, as a matter of cost",
    ),
    "ge-2021-yolox": Source(
        "YOLOX: Exceeding YOLO Series in 2021",
        "Z. Ge, S. Liu, F. Wang, Z. Li, J. Sun",
        2021,
        "simOTA: the same by the cheapest few of each box",
    ),
    "bolya-2019": Source(
        "YOLACT: Real-time Instance Segmentation",
        "D. Bolya, C. Zhou, F. Xiao, Y. J. Lee",
        2019,
        "masks mixed from prototypes, in roi-yolov5n-seg and -s-seg",
    ),
    "zheng-2020": Source(
        "Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression",
        "Z. Zheng, P. Wang, W. Liu, J. Li, R. Ye, D. Ren",
        2020,
        "complete IoU: the error of a box in every detector",
    ),
    "feng-2021": Source(
        "TOOD: Task-aligned One-stage Object Detection",
        "C. Feng, Y. Zhong, Y. Gao, M. R. Scott, W. Huang",
        2021,
        "task alignment: which predictions of package-fast learn which box",
    ),
    "tang-2019": Source(
        "Online PCB defect detector on a new PCB defect dataset",
        "S. Tang, F. He, X. Huang, J. Yang",
        2019,
        "pairs of an image and its template as the input of a detector (package-fast-pairs), and DeepPCB",
    ),
    "li-2020": Source(
        "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object Detection",
        "X. Li, W. Wang, L. Wu, S. Chen, X. Hu, J. Li, J. Tang, J. Yang",
        2020,
        "quality focal loss of scores",
    ),
    "zhang-2018": Source(
        "mixup: Beyond Empirical Risk Minimization",
        "H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz",
        2018,
        "images of packages mixed with others",
    ),
    "ghiasi-2021": Source(
        "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation",
        "G. Ghiasi, Y. Cui, A. Srinivas, R. Qian, T.-Y. Lin, E. D. Cubuk, Q. V. Le, B. Zoph",
        2021,
        "defects of one package pasted into another",
    ),
    "kirillov-2023": Source(
        "Segment Anything",
        "A. Kirillov, E. Mintun, N. Ravi, H. Mao, C. Rolland, L. Gustafson, T. Xiao, S. Whitehead, A. C. Berg, "
        "W.-Y. Lo, P. Dollar, R. Girshick",
        2023,
        "the package's mask from a box, in roi-yolov5n-sam",
    ),
    "ravi-2024": Source(
        "SAM 2: Segment Anything in Images and Videos",
        "N. Ravi, V. Gabeur, Y.-T. Hu, R. Hu, C. Ryali, T. Ma, H. Khedr, R. Rädle, C. Rolland, L. Gustafson, "
        "E. Mintun, J. Pan, K. V. Alwala, N. Carion, C.-Y. Wu, R. Girshick, P. Dollár, C. Feichtenhofer",
        2024,
        "the same, where a checkpoint of SAM 2 is taken",
    ),
    "jordan-2024": Source(
        "Muon: an optimizer for hidden layers in neural networks",
        "K. Jordan, Y. Jin, V. Boza, J. You, F. Cesista, L. Newhouse, J. Bernstein",
        2024,
        "training of the fast hole network by orthogonal steps",
    ),
    "kendall-2017": Source(
        "What Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?",
        "A. Kendall, Y. Gal",
        2017,
        "per-pixel sigma by likelihood",
    ),
    "smith-2019": Source(
        "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
        "L. N. Smith, N. Topin",
        2019,
        "the `onecycle` schedule",
    ),
    "batson-2019": Source(
        "Noise2Self: Blind Denoising by Self-Supervision",
        "J. Batson, L. Royer",
        2019,
        "self-supervised fine-tuning",
    ),
    # Uncertainty and decisions
    "lei-2018": Source(
        "Distribution-Free Predictive Inference for Regression",
        "J. Lei, M. G'Sell, A. Rinaldo, R. J. Tibshirani, L. Wasserman",
        2018,
        "split-conformal intervals scaled by sigma",
    ),
    "romano-2019": Source(
        "Conformalized Quantile Regression",
        "Y. Romano, E. Patterson, E. J. Candes",
        2019,
        "intervals of varying width with stated coverage",
    ),
    "shankar-2005": Source(
        "Defect detection on semiconductor wafer surfaces",
        "N. G. Shankar, Z. W. Zhong",
        2005,
        "golden template: edge mask, absolute difference, rules for tolerable and critical (R1, as told in S2)",
    ),
    "evangelidis-2008": Source(
        "Parametric image alignment using enhanced correlation coefficient maximization",
        "G. D. Evangelidis, E. Z. Psarakis",
        2008,
        "registration by the correlation coefficient, indifferent to gain and offset",
    ),
    "baker-2004": Source(
        "Lucas-Kanade 20 years on: a unifying framework",
        "S. Baker, I. Matthews",
        2004,
        "inverse compositional Gauss-Newton steps of registration",
    ),
    "yeh-2010": Source(
        "A wavelet-based approach in detecting visual defects on semiconductor wafer dies",
        "C.-H. Yeh, F.-C. Wu, W.-L. Ji, C.-Y. Huang",
        2010,
        "wavelet modulus, clustering energy and interscale ratio against a golden image (R2, as told in S2)",
    ),
    "vovk-2005": Source(
        "Algorithmic learning in a random world",
        "V. Vovk, A. Gammerman, G. Shafer",
        2005,
        "a threshold from good parts that keeps a stated rate of false alarms",
    ),
    "angelopoulos-2022": Source(
        "Conformal risk control",
        "A. N. Angelopoulos, S. Bates, A. Fisch, L. Lei, T. Schuster",
        2022,
        "a stated number of false findings a square millimetre",
    ),
    "gneiting-2007": Source(
        "Strictly Proper Scoring Rules, Prediction, and Estimation",
        "T. Gneiting, A. E. Raftery",
        2007,
        "interval score",
    ),
    "efron-1993": Source(
        "An Introduction to the Bootstrap", "B. Efron, R. J. Tibshirani", 1993, "bootstrap by cluster"
    ),
    "MIL-HDBK-1823A": Source(
        "Nondestructive Evaluation System Reliability Assessment",
        "US Department of Defense",
        2009,
        "probability of detection from hits and misses, a90/95 by the likelihood ratio",
    ),
    "bolya-2020": Source(
        "TIDE: A General Toolbox for Identifying Object Detection Errors",
        "D. Bolya, S. Foley, J. Hays, J. Hoffman",
        2020,
        "errors of detections by kind, and what each costs",
    ),
    "ISO 14253-1": Source(
        "Decision rules for verifying conformity or nonconformity with specifications",
        "ISO",
        2017,
        "OK, NG and review",
    ),
    "JCGM 100": Source("Guide to the expression of uncertainty in measurement", "JCGM", 2008, "intervals"),
    "ISO 5725-2": Source(
        "Basic method for the determination of repeatability and reproducibility of a standard measurement method",
        "ISO",
        2019,
        "repeatability",
    ),
    # Dies and focus
    "golub-1973": Source(
        "The differentiation of pseudo-inverses and nonlinear least squares problems whose variables separate",
        "G. H. Golub, V. Pereyra",
        1973,
        "greys that are free in every segment of the edge of a die",
    ),
    "inoue-1997": Source(
        "Video Microscopy: The Fundamentals", "S. Inoue, K. R. Spring", 1997, "depth of focus: waves and camera"
    ),
    # Outlines and angles
    "bradski-2000": Source(
        "The OpenCV Library", "G. Bradski", 2000, "adaptive threshold, contours, smallest rectangle of roi-opencv"
    ),
    "douglas-1973": Source(
        "Algorithms for the reduction of the number of points required to represent a digitized line or its caricature",
        "D. H. Douglas, T. K. Peucker",
        1973,
        "contours smoothed to polygons in roi-opencv",
    ),
    "ISO 12233": Source(
        "Photography. Electronic still picture imaging. Resolution and spatial frequency responses",
        "ISO",
        2017,
        "the slanted edge: a profile finer than the pixels, across borders of packages and dies",
    ),
    "reed-1974": Source(
        "Rapid convergence rate in adaptive arrays",
        "I. S. Reed, J. D. Mallett, L. E. Brennan",
        1974,
        "pieces of a border weighed against a covariance that is learned",
    ),
    "patterson-1971": Source(
        "Recovery of inter-block information when block sizes are unequal",
        "H. D. Patterson, R. Thompson",
        1971,
        "restricted likelihood of how rough a border is",
    ),
    "kalman-1960": Source(
        "A new approach to linear filtering and prediction problems",
        "R. E. Kalman",
        1960,
        "lines along borders whose neighbouring pieces err alike",
    ),
    "welch-1947": Source(
        "The generalization of 'Student's' problem when several different population variances are involved",
        "B. L. Welch",
        1947,
        "degrees of freedom of the angle between two fitted rectangles",
    ),
    # Surfaces
    "ISO 25178-2": Source(
        "Surface texture: Areal. Terms, definitions and surface texture parameters", "ISO", 2021, "Sa, Sq, Sz, Ssk, Sku"
    ),
    "ISO 25178-3": Source(
        "Surface texture: Areal. Specification operators", "ISO", 2012, "order of form, S- and L-filter"
    ),
    "ISO 4287": Source(
        "Surface texture: Profile method. Terms, definitions and surface texture parameters",
        "ISO",
        1997,
        "profile parameters",
    ),
    "ISO 16610-21": Source("Filtration. Linear profile filters: Gaussian filters", "ISO", 2011, "Gaussian weighting"),
    "ISO 16610-61": Source("Filtration. Linear areal filters: Gaussian filters", "ISO", 2015, "S- and L-filter"),
    # Files of fabs and of labels
    "SEMI E142": Source("Specification for Substrate Mapping, with E142.1, its XML schema", "SEMI", 2005, "strip maps"),
    "lin-2014": Source(
        "Microsoft COCO: Common Objects in Context",
        "T.-Y. Lin, M. Maire, S. Belongie, J. Hays, P. Perona, D. Ramanan, P. Dollár, C. L. Zitnick",
        2014,
        "labels with boxes, polygons and run lengths; how detections are matched and average precision is told",
    ),
}


def cite(key: str) -> Source:
    """The source behind a key.

    Raises:
        UsageError: no such key; names the nearest one.
    """
    if key in SOURCES:
        return SOURCES[key]
    near = difflib.get_close_matches(key, SOURCES, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(SOURCES)}"
    raise UsageError(f"source '{key}' is unknown; {hint}")
