"""The rectifier of Hou et al. (2023, arXiv 2312.15707): kernels modulated for each image."""
