"""UViM's stage I: the neural codec that panoptic segmentation and colorization share.

Labels to codes and, with the image as context, codes back to pixels (Kolesnikov et al. 2022,
arXiv:2205.10337; big_vision models/proj/uvim). The only part of ``tasks`` that needs torch.
"""
