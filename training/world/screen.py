"""How finely the world is drawn. Places, sizes, positions and speeds are in units of a screen of 128 x 128; PIXELS is the side of the picture.

128, 192 and 256 have been drawn. The autoencoder and the denoiser take any of them; what depends on the side takes it from here.
"""
SIZE, PIXELS = 128, 128
DENSITY = PIXELS / SIZE                     # pixels of a unit
