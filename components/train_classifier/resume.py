"""Keep the training of a classifier in checkpoints, from which a killed task resumes.

It trains no finished classifier of its pack again, and continues the one in training after the last epoch that was
stored. On a CPU it then ends with the same bytes as a task that was not killed.
"""

import time
from typing import Any

import keras
import numpy as np

from components.shared.checkpoint import Checkpoints, number, numbered
from components.shared.errors import UserError
from components.shared.log import log_line
from components.shared.storage import checkpoint_store

CHECKPOINT_INTERVAL_S = 300.0
CHECKPOINT_FORMAT = 1
"""Checkpoints of another format are rejected."""


def open_checkpoints(
    address: str, arm: str, seed: int, policy: str, settings: dict[str, Any], label: str
) -> Checkpoints | None:
    """Return the checkpoints of one classifier; None without an address.

    Args:
        address: folder of the run, or its address; empty for none.
        arm, seed: of the classifier.
        policy: name of the Keras dtype policy. On a node with another one, training starts again: all classifiers of a
            comparison have one precision.
        settings: all other values that the result depends on, as JSON values.
        label: phase, arm and seed, for messages.

    Raises:
        UserError: the address is of another kind, or is not writable.
    """
    if not address:
        return None
    own = {"arm": arm, "seed": seed, "format": CHECKPOINT_FORMAT, "backend": keras.backend.backend()}
    store = checkpoint_store(address, f"train_classifier-{arm}-seed{seed}-{policy}")
    return Checkpoints(store, settings | own, label)


class Resume(keras.callbacks.Callback):
    """The last callback of `fit`: restores the state of an earlier process, and writes checkpoints.

    The random numbers of batches and augmentation follow from the number of steps, so they are not a part of the state.

    Args:
        checkpoints: of this classifier; None for none.
        interval_s: an epoch that ends at least this many seconds after the last checkpoint writes one.
        label: phase, arm and seed, for messages.
        epochs: number of epochs of the training.
        network_: the network that is saved at the end.
        model: its compiled training form.

    Attributes:
        epoch: number of epochs that earlier processes have finished.
        is_finished: whether the network has its final weights.
        history: metric → its value in each epoch.

    Raises:
        UserError: `checkpoints.other_settings`, or the checkpoint is not one of this classifier.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        interval_s: float,
        label: str,
        epochs: int,
        network_: keras.Model,
        model: keras.Model,
    ) -> None:
        super().__init__()
        self.checkpoints, self.interval_s, self.label, self.epochs = checkpoints, interval_s, label, epochs
        self.network, self.training_form = network_, model
        self.epoch, self.is_finished = 0, False
        self.history: dict[str, list[float]] = {}
        self._seconds_before = 0.0
        self._started = self._saved_at = time.monotonic()
        if checkpoints and (saved := checkpoints.load()):
            try:
                self._restore(*saved)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{label}: the checkpoint does not belong to this classifier",
                    "delete it",
                    "checkpoint.invalid",
                    label=label,
                ) from error
            done = f"resuming after {self.epoch} of {epochs} epochs"
            log_line(label, "finished before; taken from its checkpoint" if self.is_finished else done)

    @property
    def seconds(self) -> float:
        """Training time of all processes, without epochs that were trained again."""
        return self._seconds_before + time.monotonic() - self._started

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Record the metrics, and write a checkpoint if one is due; called by Keras."""
        assert logs is not None
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))
        is_due = time.monotonic() - self._saved_at >= self.interval_s
        if self.checkpoints and is_due and epoch + 1 < self.epochs:
            self.checkpoints.save(self._values() | {"epoch": epoch + 1}, number("training", self._variables()))
            self._saved_at = time.monotonic()

    def finish(self) -> None:
        """Store the finished network."""
        self.is_finished = True
        if self.checkpoints:
            self.checkpoints.save_last(self._values() | {"epoch": self.epochs}, number("network", self.network.weights))

    def _values(self) -> dict[str, Any]:
        return {"history": self.history, "seconds": self.seconds, "is_finished": self.is_finished}

    def _variables(self) -> list[Any]:
        """Return each variable of the training once: weights, statistics, Adam's moments and steps, dropout's seeds."""
        optimizer = self.training_form.optimizer
        if not optimizer.built:
            optimizer.build(self.training_form.trainable_variables)
        variables = (*self.network.variables, *self.training_form.variables, *optimizer.variables)
        return list({id(variable): variable for variable in variables}.values())

    def _restore(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.is_finished, self.epoch = values["is_finished"], values["epoch"]
        targets = self.network.weights if self.is_finished else self._variables()
        for variable, value in zip(
            targets, numbered("network" if self.is_finished else "training", arrays), strict=True
        ):
            variable.assign(value)
        self.history, self._seconds_before = values["history"], values["seconds"]
