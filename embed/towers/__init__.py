"""Towers of images, and of images and texts, from other tools and for them: TIPS, TIPSv2 and Dinov2."""
