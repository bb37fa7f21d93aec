"""What a segmentation is worth: pure functions of a truth and a prediction.

Everything that can be added up over blocks is computed from `overlaps.Overlaps`; what looks at
a picture as a whole is in `boundaries`.
"""
