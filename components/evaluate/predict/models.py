"""Load classifiers of a published run, which may come from anyone.

Keras loads models in its safe mode, in which they contain no code.
"""

from pathlib import Path

import keras

from components.shared.errors import UserError
from components.shared.patient_metadata import inputs
from components.shared.records import MetadataEncoding


def load_classifier(path: Path, image_size: int, classes: int, encoding: MetadataEncoding | None = None) -> keras.Model:
    """Load a classifier that may come from anyone, without running code of the file.

    Args:
        path: the `.keras` file.
        image_size: height and width of its images in pixels.
        classes: number of classes.
        encoding: how its second input is computed; None for a model of images alone.

    Raises:
        UserError: `model.invalid`: it is damaged, contains code, or has another input or output.
    """
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        shapes = [tuple(it.shape) for it in (*model.inputs, *model.outputs)]
        given = [(None, image_size, image_size, 3), *([(None, len(inputs(encoding)))] if encoding else [])]
        if shapes != [*given, (None, classes)]:
            raise ValueError(f"input and output are {shapes}")
    except Exception as error:  # Keras raises undocumented exceptions for a damaged file
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(
            f"{path.name} is not a classifier of {classes} classes for images of {image_size} px",
            "use the unchanged files of one run",
            "model.invalid",
            file=path.name,
        ) from error
    return model
