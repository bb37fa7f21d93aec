"""Colours of the classes: distinguishable with every kind of colour vision."""

RGB = tuple[int, int, int]

OKABE_ITO: tuple[RGB, ...] = (
    (240, 228, 66),
    (86, 180, 233),
    (0, 158, 115),
    (230, 159, 0),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Palette of Okabe and Ito (2008), "Color Universal Design", without its black.

Yellow comes first: it stands out from stained tissue and from dark fluorescence pictures.
"""

BACKGROUND: RGB = (0, 0, 0)


def class_colour(value: int) -> RGB:
    """Colour of the class with label `value` where the model names none; 0 is background."""
    if value == 0:
        return BACKGROUND
    return OKABE_ITO[(value - 1) % len(OKABE_ITO)]
