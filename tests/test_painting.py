import numpy as np

from tilesegment.colours import OKABE_ITO
from tilesegment.painting import GAP, UNKNOWN, beside, coloured, stacked


def test_classes_have_the_colours_of_the_label_volume_and_objects_repeat_them():
    labels = np.array([[0, 1, 2, 8, 9]])
    picture = coloured(labels, labels == 9)
    black = (0, 0, 0)
    expected = [black, OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[0], UNKNOWN]
    assert [tuple(pixel) for pixel in picture[0].tolist()] == expected


def test_pictures_of_different_width_can_be_stacked():
    narrow, wide = (np.full((2, width, 3), 9, np.uint8) for width in (3, 5))
    rows = stacked([beside([narrow]), beside([narrow, wide])])
    assert rows.shape == (2 * (2 + GAP), 3 + 5 + 2 * GAP, 3)
    assert rows[0, 3:].max() == 0
