import csv

import numpy as np
from PIL import Image

from tilesegment.training.assess import AssessedTile
from tilesegment.training.record import Record, grey_or_rgb

ROW = {
    "step": 1,
    "training_loss": 0.7,
    "validation_loss": 0.6,
    "score": 0.5,
    "pixel_error": 0.4,
    "rate": 0.1,
}


def tile(height, width, channels=1):
    classes = np.zeros((height, width), np.uint8)
    return AssessedTile(np.zeros((channels, height, width), np.float32), classes, classes)


def test_record_holds_table_events_curve_and_preview(tmp_path):
    history = [ROW, {**ROW, "step": 2}]
    Record(tmp_path).write(history, [tile(10, 20), tile(30, 13, channels=3)])
    with (tmp_path / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2"]
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    with Image.open(tmp_path / "curve.png") as curve:
        assert curve.size == (700, 600)
    # Picture, truth and prediction side by side, each with a gap of 4.
    with Image.open(tmp_path / "preview.png") as preview:
        assert preview.size == (3 * 24, 14 + 34)


def test_events_can_be_read_by_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for step in (1, 2):
        Record(tmp_path).write([{**ROW, "step": step}], [tile(5, 5)])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert "score" in events.Tags()["scalars"]


def test_dark_pictures_are_stretched():
    grey = grey_or_rgb(np.linspace(0, 0.01, 200, dtype=np.float32).reshape(1, 10, 20))
    assert grey.shape == (10, 20, 3)
    assert grey.max() == 255
