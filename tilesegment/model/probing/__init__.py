"""The steps of `tilesegment.model.probe`, one module each (docs/check.md)."""
