"""Start of Keras in a command on this machine."""

import logging
import os
import sys
import tempfile


def start_keras() -> None:
    """Import Keras with TensorFlow, without the messages that TensorFlow prints before it can be configured.

    Raises:
        ImportError: after all messages were printed.
    """
    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    with tempfile.TemporaryFile() as messages:
        stderr = os.dup(2)
        os.dup2(messages.fileno(), 2)
        try:
            import keras  # noqa: F401
        except BaseException:
            messages.seek(0)
            os.write(stderr, messages.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
