"""Which value of the truth is the same class as which value of the prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilesegment.colours import class_colour
from tilesegment.errors import InputError
from tilesegment.model.file import LabelClass
from tilesegment.training.pictures import made_up_names, value_name

_MOST_CLASSES = 64
_SHOWN = 8


@dataclass(frozen=True)
class ClassTable:
    """The classes that are compared, and the index of the class of each value that occurs."""

    names: tuple[str, ...]
    truth: Mapping[int, int]
    predicted: Mapping[int, int]


def match_values(
    truth: Sequence[int],
    predicted: Sequence[int],
    known: Sequence[LabelClass],
    names: Sequence[str] | None,
) -> ClassTable:
    """Give each value that occurs its class.

    Without known classes equal values are the same class; with only 0 and one other value on each
    side, that one is the foreground, whatever it is called.

    Args:
        truth: values in the truth, rising.
        predicted: values in the prediction, rising.
        known: classes of the model or of the label image; empty if unknown.
        names: of the classes 0, 1, 2, ...; None if the user gave none.

    Raises:
        InputError: if a value belongs to no class, or neither side has the other's values.
    """
    if names is not None:
        known = [LabelClass(name, value, class_colour(value)) for value, name in enumerate(names)]
    if known:
        return ClassTable(
            tuple(item.name for item in known),
            _by_class(truth, known, "truth"),
            _by_class(predicted, known, "prediction"),
        )
    if _is_binary(truth) and _is_binary(predicted):
        one_or_zero = {value: int(value != 0) for value in (*truth, *predicted)}
        return ClassTable(("background", "foreground"), one_or_zero, one_or_zero)
    _check_same(truth, predicted)
    values = tuple(sorted({*truth, *predicted}))
    index = {value: position for position, value in enumerate(values)}
    return ClassTable(made_up_names(values, instances=False), index, index)


def _by_class(found: Sequence[int], classes: Sequence[LabelClass], side: str) -> dict[int, int]:
    """Index of the class of each value: it is the class's value, or its colour as 0xRRGGBB."""
    red, green, blue = 1 << 16, 1 << 8, 1
    by_value = {item.value: index for index, item in enumerate(classes)}
    by_colour = {
        item.colour[0] * red + item.colour[1] * green + item.colour[2] * blue: index
        for index, item in enumerate(classes)
    }
    for index in (by_value, by_colour):
        if set(found) <= set(index):
            return {value: index[value] for value in found}
    if len(classes) == 2 and _is_binary(found):
        return {value: int(value != 0) for value in found}
    if len(found) == len(classes):  # as training numbers them
        return {value: position for position, value in enumerate(sorted(found))}
    raise InputError(
        f"the {side} holds the values {_few(found)}, but the classes are "
        + ", ".join(f"{item.value} ({item.name})" for item in classes[:_SHOWN])
        + "; save it with the values of the classes, or --ignore the value of what nobody annotated"
    )


def _is_binary(found: Sequence[int]) -> bool:
    return len(set(found) - {0}) <= 1


def _check_same(truth: Sequence[int], predicted: Sequence[int]) -> None:
    if len({*truth, *predicted}) > _MOST_CLASSES:
        raise InputError(
            f"there are {len({*truth, *predicted})} different values; if every object has its own, "
            "use --kind instances, else save them as classes"
        )
    if set(truth) - set(predicted) and set(predicted) - set(truth):
        raise InputError(
            f"the prediction holds the values {_few(predicted)}, the truth {_few(truth)}; save the "
            "same class with the same value, or name all classes with --names"
        )


def _few(values: Sequence[int]) -> str:
    more = ", ..." if len(values) > _SHOWN else ""
    return ", ".join(value_name(value) for value in values[:_SHOWN]) + more
