"""ROC, average precision, Dice, FROC, kappa, SSIM and intervals: arrays in, numbers out, no torch.

``image_level`` reads scores and labels, ``overlap`` two masks, ``similarity`` two images, ``froc`` maps and lesions;
``bins`` holds counts per threshold, from which every pooled figure and its bootstrap interval follow as sums.
"""
